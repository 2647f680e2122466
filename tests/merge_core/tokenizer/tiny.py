"""Tiny models with tokenizers of every kind, and their one vocabulary."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field

import torch
from safetensors.torch import load_file, save_file

from merge_core.parents.open import open_parents
from merge_core.parents.weight_files import SINGLE
from merge_core.recipe.tokenizer_schema import TokenizerSetting, TokenSource
from merge_core.tokenizer.vocabulary import vocabulary

INDEXED = ("model.embed_tokens.weight", "lm_head.weight")


EMBED, HEAD = INDEXED


ORDER = ("a", "b", "c")


TEXTS = {
    "a": ["the cat sat on the mat", "then there the them"],
    "b": ["the dog in the fog", "zebra zebras eat the figs"],
    "c": ["der hund und the katze", "und der und der zebra"],
}


EXTRA = {"a": (), "b": ("<|im_start|>", "<|im_end|>"), "c": ("<|im_end|>",)}


ZERO, FORCED = TokenSource("zero"), TokenSource("model", "b", force=True)


def bpe(texts, extra=(), **options):
    """A small byte-level BPE tokenizer with merges; ``extra`` are added special tokens."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE(**options))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=45, special_tokens=["<s>", "</s>"], show_progress=False
    )
    core.train_from_iterator(texts, trainer)
    made = PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>")
    made.add_tokens([AddedToken(token, special=True, normalized=False) for token in extra])
    return made


def words(*names):
    """A tokenizer with one token per word."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.WordLevel({w: i for i, w in enumerate(names)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>")


def marked():
    """A tokenizer as Llama 2's: words begin with a mark, unknown letters fall back to bytes."""
    from tokenizers import Tokenizer, decoders, models, normalizers
    from transformers import PreTrainedTokenizerFast

    entries = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256))]
    entries += ["\u2581", *"thecasé", "th", "the", "at", "\u2581the", "\u2581th", "\u2581cat"]
    merges = [("t", "h"), ("th", "e"), ("a", "t"), ("\u2581", "the"), ("\u2581", "th")]
    vocabulary = {token: i for i, token in enumerate(entries)}
    made = models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    core = Tokenizer(made)
    core.normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    parts = [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
    core.decoder = decoders.Sequence([*parts, decoders.Strip(" ", 1, 0)])
    special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=core, **special)


def pieces():
    """A tokenizer as BERT's."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    entries = ["[UNK]", "[CLS]", "[SEP]", "the", "cat", "##s", "##ing", "##", "s", "##at"]
    vocabulary = {token: i for i, token in enumerate(entries)}
    core = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    core.normalizer, core.decoder = normalizers.BertNormalizer(), decoders.WordPiece()
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = {"cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]"}
    return PreTrainedTokenizerFast(tokenizer_object=core, **special)


def make_model(folder, tokenizer, seed, rows=None, dtype="float32"):
    """A Llama whose embedding has a row for every token (or ``rows``), with its tokenizer."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=rows or len(tokenizer),
        hidden_size=8,
        intermediate_size=8,
        num_attention_heads=2,
        num_hidden_layers=1,
        bos_token_id=0,
        eos_token_id=1,
        tie_word_embeddings=False,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        LlamaForCausalLM(config).to(getattr(torch, dtype)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@dataclass
class Case:
    """Parents and the vocabulary that a setting gives them."""

    root: object
    setting: TokenizerSetting = field(default_factory=TokenizerSetting)
    base: str | None = "a"
    order: tuple[str, ...] = ORDER
    indexed: tuple[str, ...] = INDEXED

    def __post_init__(self):
        names = dict.fromkeys([*self.order, *self.setting.references()])
        self.parents = open_parents(list(names), [self.root])
        self.made = vocabulary(self.setting, self.parents, self.base, self.order, self.indexed)

    def rows(self, name, tensor=EMBED):
        """Token -> row of the re-indexed parent."""
        stored = self.made.reindexed(name).tensor(tensor)
        return {token: stored[i] for token, i in self.made.token_ids.items()}

    def old(self, name, token, tensor=EMBED):
        """The row that a token has in the parent itself."""
        return self.parents[name].tensor(tensor)[self.tokenizer(name).get_vocab()[token]]

    def tokenizer(self, name):
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(self.parents[name].folder)

    def tokens(self, name):
        return set(self.tokenizer(name).get_vocab())


def copy(models, tmp_path, *names):
    """Copies of some models, to spoil."""
    for name in names:
        shutil.copytree(models / name, tmp_path / name)
    return tmp_path


def edit(file, **changes):
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def resize(folder, rows, *tensors):
    stored = load_file(folder / SINGLE)
    for name in tensors or INDEXED:
        stored[name] = stored[name][:rows].clone()
    save_file(stored, folder / SINGLE, metadata={"format": "pt"})
    edit(folder / "config.json", vocab_size=rows)
