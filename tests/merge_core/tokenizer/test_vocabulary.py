"""One vocabulary for parents with different ones, checked by hand and against mergekit 0.1.5.

mergekit is called as a program. Rows are compared token by token: the ids of a union are not
mergekit's, which appends tokens in the order of a hash map. Other differences:

- What is an ordinary token in another model is an added token in mergekit's result, and matches
  inside the base's words (``test_mergekit_encodes_the_bases_text_in_another_way``).
- A token of another model beyond its rows stops mergekit with a KeyError; here it is absent there.
- A tokenizer that a model gives as ``source`` is cut to its rows as the base's is.
- Every entry under ``tokens`` must hold, also where no model lacks the token.
"""

from __future__ import annotations

import json
import random
import shutil
from dataclasses import dataclass, field

import pytest
import torch
from safetensors.torch import load_file, save_file

from merge_core.errors import CheckpointError, ParameterError, ShapeError
from merge_core.parents.open import open_parents
from merge_core.parents.weight_files import SINGLE
from merge_core.recipe.tokenizer_schema import TokenizerSetting, TokenSource
from merge_core.tokenizer.vocabulary import vocabulary

pytestmark = pytest.mark.filterwarnings("ignore:numpy.core is deprecated:DeprecationWarning")

AXES = {"model.embed_tokens.weight": 0, "lm_head.weight": 0}
EMBED, HEAD = AXES
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


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """Three models with BPE vocabularies that overlap; do not write into them."""
    root = tmp_path_factory.mktemp("vocabularies")
    for i, name in enumerate(ORDER):
        make_model(root / name, bpe(TEXTS[name], EXTRA[name]), i)
    return root


@dataclass
class Case:
    """Parents and the vocabulary that a setting gives them."""

    root: object
    setting: TokenizerSetting = field(default_factory=TokenizerSetting)
    base: str | None = "a"
    order: tuple[str, ...] = ORDER
    axes: dict[str, int] = field(default_factory=lambda: AXES)

    def __post_init__(self):
        names = dict.fromkeys([*self.order, *self.setting.references()])
        self.parents = open_parents(list(names), [self.root])
        self.made = vocabulary(self.setting, self.parents, self.base, self.order, self.axes)

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
    for name in tensors or AXES:
        stored[name] = stored[name][:rows].clone()
    save_file(stored, folder / SINGLE, metadata={"format": "pt"})
    edit(folder / "config.json", vocab_size=rows)


# The result's tokens


def test_union_has_the_tokens_of_all_models_and_the_ids_of_the_base(models):
    case = Case(models)
    made = case.made.token_ids
    assert set(made) == case.tokens("a") | case.tokens("b") | case.tokens("c")
    assert case.tokenizer("a").get_vocab().items() <= made.items()
    assert sorted(made.values()) == list(range(len(made)))
    assert case.made.size == len(made) == len(case.made.tokenizer)


def test_union_appends_tokens_by_model_and_row(models):
    case = Case(models)
    known, expected = case.tokens("a"), []
    for name in ("b", "c"):
        ids = case.tokenizer(name).get_vocab()
        expected += [t for t in sorted(ids, key=ids.get) if t not in known]
        known |= set(ids)
    appended = sorted(case.made.token_ids, key=case.made.token_ids.get)[-len(expected) :]
    assert appended == expected


def test_union_follows_the_recipe_order(models):
    ids = [Case(models, order=order).made.token_ids for order in (ORDER, ("b", "c", "a"))]
    assert ids[0] == ids[1]
    assert Case(models, order=("c", "b", "a")).made.token_ids != ids[0]


def test_union_without_a_base_starts_with_the_first_model(models):
    case = Case(models, base=None, order=("b", "a"))
    assert case.tokenizer("b").get_vocab().items() <= case.made.token_ids.items()


def test_base_source_is_the_tokenizer_of_the_base(models):
    case = Case(models, TokenizerSetting("base"), base="b")
    assert case.made.token_ids == case.tokenizer("b").get_vocab()


def test_model_source_is_that_models_tokenizer_even_if_it_is_not_merged(models):
    case = Case(models, TokenizerSetting("c"), order=("a", "b"))
    assert case.made.token_ids == case.tokenizer("c").get_vocab()


SENTENCES = ["the cat sat on the mat", "then there", "them<s>mat", "neat seat", "athe hat"]


@pytest.mark.parametrize("sentence", SENTENCES)
def test_text_of_the_base_is_encoded_as_before(models, sentence):
    case = Case(models)
    assert case.made.tokenizer(sentence) == case.tokenizer("a")(sentence)


def test_any_text_of_the_base_is_encoded_as_before(models):
    case, draw = Case(models), random.Random(0)
    texts = ["".join(draw.choices("acehmnorst   ", k=30)) for _ in range(300)]
    before = case.tokenizer("a")(texts)["input_ids"]
    assert case.made.tokenizer(texts)["input_ids"] == before


def test_characters_that_the_base_does_not_know_are_found(models):
    case = Case(models)
    assert case.tokenizer("a").tokenize("zebra") == ["e", "r", "a"]
    assert case.made.tokenizer.tokenize("zebra") == ["z", "e", "b", "r", "a"]


def test_whole_words_are_found_where_the_base_looks_for_them_before_merging(models, tmp_path):
    root = copy(models, tmp_path, "b")
    make_model(root / "a", bpe(TEXTS["a"], ignore_merges=True), 0)
    assert Case(root, order=("a", "b")).made.tokenizer.tokenize("zebra zeb")[0] == "zebra"


def test_added_tokens_of_other_models_are_found_in_text(models):
    made = Case(models).made
    found = made.tokenizer.tokenize("<|im_start|>the<|im_end|>")
    assert found == ["<|im_start|>", "the", "<|im_end|>"]
    facts = made.tokenizer.added_tokens_decoder[made.token_ids["<|im_end|>"]]
    assert (facts.special, facts.normalized) == (True, False)


def test_ordinary_tokens_of_other_models_can_be_decoded(models):
    made = Case(models).made
    assert made.tokenizer.decode([made.token_ids["Ġzebra"]]) == " zebra"


def test_special_tokens_stay_those_of_the_base(models):
    tokenizer = Case(models).made.tokenizer
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token) == (0, 1, None)


def test_saved_tokenizer_is_the_one_in_memory(models, tmp_path):
    from transformers import AutoTokenizer

    made = Case(models).made
    made.tokenizer.chat_template = "{{ messages }}"
    made.save(tmp_path)
    read = AutoTokenizer.from_pretrained(tmp_path)
    assert read.get_vocab() == made.token_ids
    assert read.chat_template == "{{ messages }}"
    text = "the zebra<|im_end|> sat"
    assert read(text) == made.tokenizer(text)


def test_tokenizer_whose_class_changes_it_on_reading_is_refused(models, tmp_path):
    made = Case(models).made
    made.token_ids = {**made.token_ids, "lost": made.size}
    with pytest.raises(CheckpointError, match=r"gives the token 'lost' the id None where \d+ is"):
        made.save(tmp_path)


def test_tokenizer_whose_class_adds_what_was_cut_is_refused(tmp_path):
    from transformers import GPT2Tokenizer

    vocab = {t: i for i, t in enumerate(["a", "b", "ab", "<|endoftext|>"])}
    make_model(tmp_path / "a", GPT2Tokenizer(vocab=vocab, merges=[("a", "b")]), 0, rows=3)
    with pytest.raises(CheckpointError, match=r"GPT2Tokenizer gives the token '<\|endoftext\|>'"):
        Case(tmp_path, order=("a",))


def test_token_that_only_the_setting_names_is_added(models):
    setting = TokenizerSetting("base", (("<|new|>", ZERO),))
    case = Case(models, setting)
    assert case.made.token_ids["<|new|>"] == len(case.tokens("a"))
    assert case.made.tokenizer.tokenize("cat<|new|>sat")[1:2] == ["<|new|>"]
    assert not case.rows("b")["<|new|>"].any()


def test_named_token_has_the_facts_of_the_token_that_gives_its_row(models):
    source = TokenSource("model_token", "b", token="<|im_end|>")
    made = Case(models, TokenizerSetting("base", (("<|stop|>", source),))).made
    assert made.tokenizer.added_tokens_decoder[made.token_ids["<|stop|>"]].special


def test_word_level_tokenizers_take_in_words(tmp_path):
    make_model(tmp_path / "a", words("<unk>", "cat", "dog"), 0)
    make_model(tmp_path / "b", words("dog", "<unk>", "fox"), 1)
    case = Case(tmp_path, order=("a", "b"))
    assert case.made.tokenizer.tokenize("cat fox cow dog") == ["cat", "fox", "<unk>", "dog"]
    assert torch.equal(case.rows("b")["fox"], case.old("b", "fox"))


@pytest.mark.parametrize("ending", [False, True])
def test_llama_and_gpt2_classes_keep_the_union_on_reading(tmp_path, ending):
    from transformers import GPT2Tokenizer, LlamaTokenizer

    pieces = ["<unk>", "<s>", "</s>", "▁", "a", "b", "c", "ab", "▁c"]
    merges = [("a", "b"), ("▁", "c")]
    llama = LlamaTokenizer(vocab={t: i for i, t in enumerate(pieces)}, merges=merges)
    gpt2 = GPT2Tokenizer(
        vocab={t: i for i, t in enumerate(["<|endoftext|>", "a", "d", "ad"])}, merges=[("a", "d")]
    )
    first, second = (gpt2, llama) if ending else (llama, gpt2)
    make_model(tmp_path / "a", first, 0)
    make_model(tmp_path / "b", second, 1)
    case = Case(tmp_path, order=("a", "b"))
    case.made.save(tmp_path / "a")
    assert set(case.made.token_ids) == {*pieces, "<|endoftext|>", "d", "ad"}
    assert type(case.made.tokenizer) is type(first)


# Tokens without a row


def test_bpe_tokens_beyond_the_rows_are_cut_with_their_merges_and_names(models, tmp_path):
    root = copy(models, tmp_path, "a", "b")
    tokenizer = bpe(TEXTS["a"], ("<pad>",))
    tokenizer.pad_token = "<pad>"
    tokenizer.save_pretrained(root / "a")
    resize(root / "a", len(tokenizer) - 3)
    case = Case(root, TokenizerSetting("base"), order=("a", "b"))
    assert case.made.size == len(tokenizer) - 3
    assert max(case.made.token_ids.values()) == case.made.size - 1
    assert case.made.tokenizer.pad_token is None
    assert case.made.tokenizer.decode(case.made.tokenizer("the cat sat")["input_ids"])


def test_tokenizer_of_a_named_model_is_cut_to_that_models_rows(models, tmp_path):
    root = copy(models, tmp_path, "a", "b")
    resize(root / "b", 30)
    case = Case(root, TokenizerSetting("b"), order=("a", "b"))
    assert (case.made.size, len(case.made.token_ids)) == (30, 30)


def test_special_token_without_a_row_is_kept_if_another_model_has_a_row(models, tmp_path):
    root = copy(models, tmp_path, "a")
    tokenizer = bpe(TEXTS["a"], ("<|im_end|>",))
    tokenizer.pad_token = "<|im_end|>"
    tokenizer.save_pretrained(root / "a")
    resize(root / "a", len(tokenizer) - 1)
    shutil.copytree(models / "b", root / "b")
    case = Case(root, order=("a", "b"))
    assert case.made.tokenizer.pad_token == "<|im_end|>"
    assert torch.equal(case.rows("a")["<|im_end|>"], case.old("b", "<|im_end|>"))


def test_token_of_another_model_beyond_its_rows_is_absent_there(models, tmp_path):
    root = copy(models, tmp_path, *ORDER)
    resize(root / "b", len(bpe(TEXTS["b"], EXTRA["b"])) - 1)  # without a row for <|im_end|>
    case = Case(root)
    assert torch.equal(case.rows("b")["<|im_end|>"], case.old("c", "<|im_end|>"))


def test_smallest_tensor_says_how_many_rows_there_are(models, tmp_path):
    root = copy(models, tmp_path, "a", "b")
    resize(root / "b", 20, HEAD)
    assert len(Case(root, order=("a", "b")).made._ids["b"]) == 20


def test_other_tokenizer_with_tokens_beyond_the_rows_is_refused(tmp_path):
    make_model(tmp_path / "a", words("<unk>", "cat", "dog"), 0, rows=2)
    with pytest.raises(CheckpointError, match=r"token 'dog' beyond the 2 rows .*not WordLevel"):
        Case(tmp_path, order=("a",))


# Rows


@pytest.mark.parametrize("tensor", AXES)
def test_own_row_is_kept_and_a_missing_one_is_the_bases(models, tensor):
    case = Case(models)
    for name in ("b", "c"):
        rows = case.rows(name, tensor)
        for token in case.tokens("a"):
            donor = name if token in case.tokens(name) else "a"
            assert torch.equal(rows[token], case.old(donor, token, tensor))


def test_row_of_a_token_that_one_model_has_is_that_models(models):
    case = Case(models)
    only = case.tokens("b") - case.tokens("a") - case.tokens("c")
    assert only
    for token in only:
        for name in ORDER:
            assert torch.equal(case.rows(name)[token], case.old("b", token))


def test_row_of_a_token_that_some_models_have_and_the_base_lacks_is_the_mean(models):
    case = Case(models)
    mean = (case.old("b", "<|im_end|>") + case.old("c", "<|im_end|>")) / 2
    torch.testing.assert_close(case.rows("a")["<|im_end|>"], mean)
    assert torch.equal(case.rows("b")["<|im_end|>"], case.old("b", "<|im_end|>"))


def test_without_a_base_the_mean_stands_for_a_missing_row(models):
    case = Case(models, base=None)
    shared = sorted((case.tokens("a") & case.tokens("b")) - case.tokens("c"))
    mean = (case.old("a", shared[0]) + case.old("b", shared[0])) / 2
    torch.testing.assert_close(case.rows("c")[shared[0]], mean)


def test_padded_rows_are_the_mean_of_all_others(models):
    made = Case(models, TokenizerSetting(pad_to_multiple_of=64)).made
    rows = made.reindexed("b").tensor(EMBED)
    real = len(made.token_ids)
    assert (made.size, len(rows)) == (-(-real // 64) * 64, made.size)
    assert made.size > real
    torch.testing.assert_close(rows[real:], rows[:real].mean(0).expand(made.size - real, 8))


def test_row_without_a_token_between_others_is_padding(tmp_path):
    tokenizer = words("<unk>", "cat", "dog")
    make_model(tmp_path / "a", tokenizer, 0, rows=6)
    document = json.loads((tmp_path / "a" / "tokenizer.json").read_text())
    document["model"]["vocab"]["dog"] = 4
    (tmp_path / "a" / "tokenizer.json").write_text(json.dumps(document))
    case = Case(tmp_path, order=("a",))
    rows, stored = case.made.reindexed("a").tensor(EMBED), case.parents["a"].tensor(EMBED)
    assert case.made.size == 5
    assert torch.equal(rows[[0, 1, 4]], stored[[0, 1, 4]])
    torch.testing.assert_close(rows[2:4], stored[[0, 1, 4]].mean(0).expand(2, 8))


def test_size_that_fits_is_not_padded(models):
    size = Case(models).made.size
    assert Case(models, TokenizerSetting(pad_to_multiple_of=size)).made.size == size


def test_forced_source_replaces_own_rows_too(models):
    case = Case(models, TokenizerSetting("base", (("t", FORCED),)))
    for name in ORDER:
        assert torch.equal(case.rows(name)["t"], case.old("b", "t"))


def test_source_that_is_not_forced_leaves_own_rows(models):
    tokens = (("<|im_end|>", ZERO),)
    case = Case(models, TokenizerSetting("union", tokens))
    assert not case.rows("a")["<|im_end|>"].any()
    assert torch.equal(case.rows("c")["<|im_end|>"], case.old("c", "<|im_end|>"))


@pytest.mark.parametrize("source", [{"token": "<|im_start|>"}, {"token_id": 3}])
def test_row_may_be_that_of_another_token(models, source):
    tokens = (("<|new|>", TokenSource("model_token", "b", **source)),)
    case = Case(models, TokenizerSetting("base", tokens), order=("a", "c"))
    ids = case.tokenizer("b").get_vocab()
    row = case.parents["b"].tensor(HEAD)[ids[source["token"]] if "token" in source else 3]
    for name in ("a", "c"):
        assert torch.equal(case.rows(name, HEAD)["<|new|>"], row)


def test_other_axis_than_the_first_is_re_indexed(models, tmp_path):
    root = copy(models, tmp_path, *ORDER)
    for name in ORDER:
        stored = load_file(root / name / SINGLE)
        stored[HEAD] = stored[HEAD].T.contiguous()
        save_file(stored, root / name / SINGLE)
    case = Case(root, TokenizerSetting(pad_to_multiple_of=64), axes={EMBED: 0, HEAD: 1})
    usual = Case(models, TokenizerSetting(pad_to_multiple_of=64))
    for name in ORDER:
        turned, straight = (x.made.reindexed(name) for x in (case, usual))
        assert torch.equal(turned.tensor(HEAD).T, straight.tensor(HEAD))
        assert turned.tensors[HEAD].shape == (8, case.made.size)


def test_vector_with_an_entry_per_token_is_re_indexed(models, tmp_path):
    root = copy(models, tmp_path, *ORDER)
    for name in ORDER:
        stored = load_file(root / name / SINGLE)
        save_file({**stored, "bias": stored[HEAD][:, 0].clone()}, root / name / SINGLE)
    case = Case(root, TokenizerSetting(pad_to_multiple_of=64), axes={**AXES, "bias": 0})
    for name in ORDER:
        made = case.made.reindexed(name)
        torch.testing.assert_close(made.tensor("bias"), made.tensor(HEAD)[:, 0])


# The re-indexed parent


def test_reindexed_parent_is_the_parent_but_for_its_vocabulary(models):
    case = Case(models)
    parent, made = case.parents["b"], case.made.reindexed("b")
    assert (made.reference, made.folder, made.located) == ("b", parent.folder, parent.located)
    assert (made.config, made.digest) == (parent.config, parent.digest)
    assert made.tensors.keys() == parent.tensors.keys()
    for name, info in made.tensors.items():
        assert made.tensor(name).shape == info.shape
        if name not in AXES:
            assert info == parent.tensors[name]
            assert torch.equal(made.tensor(name), parent.tensor(name))


def test_parent_that_has_the_vocabulary_gives_its_own_pages(models):
    case = Case(models, TokenizerSetting("base"))
    made = case.made.reindexed("a")
    assert torch.equal(made.tensor(EMBED), case.parents["a"].tensor(EMBED))
    assert made.tensors == case.parents["a"].tensors


def test_parents_are_left_as_they_were(models):
    case = Case(models)
    before = {name: case.parents[name].tensor(EMBED).clone() for name in ORDER}
    for name in ORDER:
        case.rows(name)
        assert torch.equal(case.parents[name].tensor(EMBED), before[name])


def test_stored_type_stays_unless_rows_are_means(models, tmp_path):
    for i, name in enumerate(ORDER):
        make_model(tmp_path / name, bpe(TEXTS[name], EXTRA[name]), i, dtype="bfloat16")
    case = Case(tmp_path)
    types = {name: case.made.reindexed(name).tensor(EMBED).dtype for name in ORDER}
    assert types == {"a": torch.float32, "b": torch.bfloat16, "c": torch.bfloat16}
    assert {case.made.reindexed(name).tensors[EMBED].dtype for name in ORDER} == {"BF16"}
    mean = sum(case.old(name, "<|im_end|>").float() for name in ("b", "c")) / 2
    torch.testing.assert_close(case.rows("a")["<|im_end|>"], mean)
    padded = Case(tmp_path, TokenizerSetting(pad_to_multiple_of=64)).made.reindexed("b")
    assert padded.tensor(EMBED).dtype == torch.float32


def test_rows_from_a_parent_of_another_type_are_not_rounded(models, tmp_path):
    root = copy(models, tmp_path, "b")
    make_model(root / "a", bpe(TEXTS["a"]), 0, dtype="bfloat16")
    case = Case(root, order=("a", "b"))
    assert torch.equal(case.rows("a")["Ġzebra"], case.old("b", "Ġzebra"))


# Refusals


def test_model_without_a_tokenizer_is_refused(models, tmp_path):
    root = copy(models, tmp_path, "a", "b")
    (root / "b" / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"/b: no tokenizer\.json; save the model's"):
        Case(root, order=("a", "b"))


def test_damaged_tokenizer_is_refused(models, tmp_path):
    root = copy(models, tmp_path, "a")
    (root / "a" / "tokenizer.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"/a: its tokenizer cannot be read: "):
        Case(root, order=("a",))


def test_slow_tokenizer_is_refused(models, tmp_path):
    root = copy(models, tmp_path, "a")
    (root / "a" / "tokenizer.json").unlink()
    (root / "a" / "vocab.json").write_text(json.dumps({"<unk>": 0, "a": 1}))
    edit(root / "a" / "tokenizer_config.json", tokenizer_class="CTRLTokenizer")
    (root / "a" / "merges.txt").write_text("#version\n")
    with pytest.raises(CheckpointError, match=r"/a: CTRLTokenizer has no form of the tokenizers"):
        Case(root, order=("a",))


def test_parent_without_an_embedding_is_refused(models):
    with pytest.raises(CheckpointError, match=r"/a: has none of wte$"):
        Case(models, axes={"wte": 0})


def test_model_that_is_not_open_is_refused(models):
    parents = open_parents(["a", "b"], [models])
    setting = TokenizerSetting("bb")
    with pytest.raises(ParameterError, match=r"no model 'bb' is open, did you mean 'b'\?"):
        vocabulary(setting, parents, "a", ["a", "b"], AXES)


@pytest.mark.parametrize(
    ("source", "lacking"),
    [
        (TokenSource("model", "b"), "token '<x>'"),
        (TokenSource("model_token", "b", token="<y>"), "token '<y>'"),
        (TokenSource("model_token", "b", token_id=999), "token id 999"),
    ],
)
def test_source_that_does_not_have_the_token_is_refused(models, source, lacking):
    rule = rf"'<x>' takes its row from b, which has no {lacking} in its \d+ rows"
    with pytest.raises(ParameterError, match=rule):
        Case(models, TokenizerSetting("union", (("<x>", source),)))


def test_donor_with_other_columns_is_refused(models, tmp_path):
    root = copy(models, tmp_path, "a", "b")
    stored = load_file(root / "b" / SINGLE)
    save_file({**stored, EMBED: stored[EMBED][:, :4].clone()}, root / "b" / SINGLE)
    made = Case(root, order=("a", "b")).made
    with pytest.raises(ShapeError, match=r"a row of a is \(8,\), one of b \(4,\)"):
        made.reindexed("a")


def test_donor_without_the_tensor_is_refused(models, tmp_path):
    root = copy(models, tmp_path, "a", "b")
    stored = load_file(root / "b" / SINGLE)
    del stored[HEAD]
    save_file(stored, root / "b" / SINGLE)
    made = Case(root, order=("a", "b")).made
    with pytest.raises(
        CheckpointError, match=r"lm_head\.weight: a has it and needs rows .* from b"
    ):
        made.reindexed("a")


def test_tokenizer_that_cannot_take_in_ordinary_tokens_is_refused(models, tmp_path):
    from tokenizers import Tokenizer
    from tokenizers import models as kinds
    from transformers import PreTrainedTokenizerFast

    root = copy(models, tmp_path, "b")
    core = Tokenizer(kinds.Unigram([("<unk>", 0.0), ("a", -1.0)], unk_id=0))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>")
    make_model(root / "a", tokenizer, 0)
    with pytest.raises(CheckpointError, match=r"type Unigram cannot take in .*\{source: base\}"):
        Case(root, order=("a", "b"))


def test_unigram_tokenizer_takes_in_added_tokens(tmp_path):
    from tokenizers import Tokenizer
    from tokenizers import models as kinds
    from transformers import PreTrainedTokenizerFast

    for i, name in enumerate("ab"):
        core = Tokenizer(kinds.Unigram([("<unk>", 0.0), ("a", -1.0)], unk_id=0))
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>")
        tokenizer.add_tokens(["<x>", "<y>"][i : i + 1])
        make_model(tmp_path / name, tokenizer, i)
    made = Case(tmp_path, order=("a", "b")).made
    assert made.token_ids == {"<unk>": 0, "a": 1, "<x>": 2, "<y>": 3}


# Against mergekit


SOURCES = {
    "union": TokenizerSetting(),
    "base": TokenizerSetting("base"),
    "model": TokenizerSetting("c"),
    "padded": TokenizerSetting(pad_to_multiple_of=64),
    "tokens": TokenizerSetting(
        "union",
        (
            ("<|im_end|>", TokenSource("model", "c", force=True)),
            ("<|im_start|>", TokenSource("model_token", "b", token="the")),
            ("<|new|>", ZERO),
            ("<|other|>", TokenSource("model_token", "c", token_id=5)),
            ("Ġzebra", TokenSource("zero", force=True)),
            ("t", TokenSource("zero")),
        ),
        8,
    ),
}


@pytest.fixture
def mergekit(models, tmp_path):
    """Return the weights and the tokenizer of mergekit's own linear merge."""
    pytest.importorskip("mergekit", reason="the oracle is a development dependency")
    from mergekit.config import MergeConfiguration
    from mergekit.merge import run_merge
    from mergekit.options import MergeOptions
    from transformers import AutoTokenizer

    def run(setting, base, order):
        places = {name: str(models / name) for name in ORDER}
        data = {
            "merge_method": "linear",
            "models": [{"model": places[n], "parameters": {"weight": 1.0}} for n in order],
            "tokenizer": setting.with_references(places).plain(),
            "dtype": "float32",
        }
        if base is not None:
            data["base_model"] = places[base]
        options = MergeOptions(copy_tokenizer=False, write_model_card=False, quiet=True)
        run_merge(MergeConfiguration.model_validate(data), str(tmp_path / "out"), options)
        weights = load_file(tmp_path / "out" / "model.safetensors")
        return weights, AutoTokenizer.from_pretrained(tmp_path / "out")

    return run


@pytest.mark.parametrize(
    ("name", "base"),
    [
        (name, base)
        for name in SOURCES
        for base in ("a", "b", None)
        if (name, base) != ("base", None)
    ],
)  # mergekit's base without a base_model is whatever model stands first in a set
def test_mean_of_the_reindexed_parents_is_that_of_mergekit(mergekit, models, name, base):
    theirs, tokenizer = mergekit(SOURCES[name], base, ORDER)
    case = Case(models, SOURCES[name], base=base)
    ids = tokenizer.get_vocab()
    assert set(ids) == set(case.made.token_ids)
    parents = [case.made.reindexed(parent) for parent in ORDER]
    order = [case.made.token_ids[token] for token in ids]
    for tensor in AXES:
        ours = sum(parent.tensor(tensor) for parent in parents) / 3
        assert ours.shape == theirs[tensor].shape
        torch.testing.assert_close(ours[order], theirs[tensor][list(ids.values())])
        torch.testing.assert_close(ours[len(ids) :], theirs[tensor][len(ids) :])


def test_mergekit_encodes_the_bases_text_in_another_way(mergekit, models):
    _, theirs = mergekit(TokenizerSetting(), "a", ORDER)
    case = Case(models)
    assert any(theirs.tokenize(s) != case.tokenizer("a").tokenize(s) for s in SENTENCES)
