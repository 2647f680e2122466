"""A merge's GGUF file, read by the ``gguf`` library and loaded back by transformers."""

import json
import shutil

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from merge_core import api
from merge_core.errors import MergeWarning, NonFiniteError, ParameterError
from merge_core.output import gguf_export, gguf_vocabulary
from merge_core.output.model_folder import Writing
from merge_core.parents import gguf_header
from merge_core.parents.open import open_parents
from merge_core.tokenizer.parent_tokenizer import open_tokenizer
from tests.merge_core.parents import gguf_files

IDS = torch.tensor([[1, 7, 20, 33, 9, 14, 2, 40]])
KINDS = {
    "Llama": {"tie_word_embeddings": False},
    "Mistral": {"tie_word_embeddings": True, "head_dim": 32, "sliding_window": None},
    "Qwen2": {"layer_types": ["full_attention"] * 2},
    "Qwen3": {"head_dim": 128, "layer_types": ["full_attention"] * 2},
}


def byte_level(pre=None, prefix=""):
    """A tokenizer of GPT-2's kind, with the words of the tests' files."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = {word: i for i, word in enumerate(gguf_files.WORDS)}
    merges = [tuple(x.split()) for x in gguf_files.MERGES]
    core = Tokenizer(models.BPE(words, merges))
    core.pre_tokenizer = pre or pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    if prefix:
        core.post_processor = processors.TemplateProcessing(prefix, None, [("<bos>", 1)])
    names = dict(
        zip(("pad_token", "bos_token", "eos_token", "unk_token"), gguf_files.SPECIAL, strict=True)
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core, chat_template=gguf_files.TEMPLATE, **names
    )


def model_folder(folder, kind="Llama", tokenizer=None, **more):
    gguf_files.model(kind, **{**KINDS[kind], **more}).save_pretrained(folder)
    (tokenizer or byte_level()).save_pretrained(folder)
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    return folder


def merged(folder, quant, **more):
    """Return the GGUF file of a merge of one model."""
    recipe = f"merge_method: passthrough\nmodels: [{{model: {folder}}}]\n"
    out = folder.parent / f"out-{quant}"
    api.merge(recipe, out, how=Writing(gguf=quant), **more)
    return out / f"out-{quant}-{quant.upper()}.gguf"


def loaded(file):
    return AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype="float32")


@pytest.mark.parametrize("kind", KINDS)
def test_float32_file_is_the_same_model_for_transformers(tmp_path, kind):
    folder = model_folder(tmp_path / "model", kind)
    file = merged(folder, "f32")
    model, back = AutoModelForCausalLM.from_pretrained(folder, dtype="float32"), loaded(file)
    weights = back.state_dict()
    for name, x in model.state_dict().items():
        assert weights[name].equal(x), name
    with torch.no_grad():
        assert torch.allclose(model(IDS).logits, back(IDS).logits, atol=1e-5)


@pytest.mark.parametrize(("quant", "kind"), [("q8_0", "Q8_0"), ("f16", "F16"), ("bf16", "BF16")])
def test_packed_file_is_near_within_the_bound_of_its_kind(tmp_path, quant, kind):
    folder = model_folder(tmp_path / "model")
    file = merged(folder, quant)
    reader = gguf.GGUFReader(file)
    kinds = {len(x.shape): x.tensor_type.name for x in reader.tensors}
    assert kinds == {1: "F32", 2: kind}
    (parent,) = open_parents([str(file)], [tmp_path]).values()
    for name, x in load_file(folder / "model.safetensors").items():
        error = (parent.tensor(name) - x).abs()
        if x.dim() < 2:
            assert not error.any()
            continue
        blocks = error.reshape(-1, 32)
        largest = x.abs().reshape(-1, 32).amax(1, keepdim=True)
        step = {"q8_0": largest / 127 * 0.57, "f16": largest / 2**11, "bf16": largest / 2**8}[quant]
        assert (blocks <= step).all(), name
        assert error.any()


def test_library_reads_what_llama_cpp_asks_for(tmp_path):
    file = merged(model_folder(tmp_path / "model"), "q8_0")
    fields = {key: field.contents() for key, field in gguf.GGUFReader(file).fields.items()}
    wanted = {
        "general.architecture": "llama",
        "general.name": "out-q8_0",
        "general.license": "apache-2.0",
        "general.file_type": 7,
        "llama.block_count": 2,
        "llama.attention.head_count": 4,
        "llama.attention.head_count_kv": 2,
        "llama.attention.layer_norm_rms_epsilon": np.float32(1e-5),
        "llama.rope.dimension_count": 16,
        "llama.rope.freq_base": 10000.0,
        "llama.vocab_size": len(gguf_files.WORDS),
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": gguf_files.WORDS,
        "tokenizer.ggml.merges": gguf_files.MERGES,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.chat_template": gguf_files.TEMPLATE,
    }
    assert {key: fields.get(key) for key in wanted} == wanted
    assert fields["tokenizer.ggml.token_type"] == [3] * 4 + [1] * (len(gguf_files.WORDS) - 4)


def test_record_of_the_folder_lists_the_file_and_a_failure_leaves_nothing(tmp_path):
    folder = model_folder(tmp_path / "model")
    file = merged(folder, "f32")
    record = json.loads((file.parent / "mergetune.json").read_text())
    assert record["files"][file.name]["bytes"] == file.stat().st_size
    weights = gguf_files.model()
    with torch.no_grad():
        weights.model.embed_tokens.weight[3, 3] = 1e5
    weights.save_pretrained(folder)
    with pytest.raises(NonFiniteError, match=r"embed_tokens\.weight has a weight beyond float16"):
        merged(folder, "f16")
    assert not (tmp_path / "out-f16").exists()


def digits_alone():
    from tokenizers import pre_tokenizers as pre

    return pre.Sequence([pre.Digits(individual_digits=True), pre.ByteLevel(add_prefix_space=False)])


def split_by(pattern):
    from tokenizers import Regex
    from tokenizers import pre_tokenizers as pre

    split = pre.Split(Regex(pattern), "isolated")
    return pre.Sequence([split, pre.ByteLevel(add_prefix_space=False, use_regex=False)])


@pytest.mark.parametrize(
    ("pre", "name"),
    [
        (None, "gpt-2"),
        (digits_alone, "smollm"),
        (lambda: split_by(gguf_vocabulary.LLAMA3), "llama-bpe"),
        (lambda: split_by(gguf_vocabulary.QWEN2), "qwen2"),
    ],
)
def test_tokenizer_reads_texts_alike_when_it_is_read_back(tmp_path, pre, name):
    own = byte_level(pre and pre(), prefix="<bos> $A")
    file = merged(model_folder(tmp_path / "model", tokenizer=own), "f32")
    header = gguf_header.read(file)
    assert header.metadata["tokenizer.ggml.pre"] == name
    assert header.metadata["tokenizer.ggml.add_bos_token"] is True
    shutil.copy(file, tmp_path / "alone.gguf")
    (parent,) = open_parents([str(tmp_path / "alone.gguf")], [tmp_path]).values()
    back = open_tokenizer(parent.folder)
    assert back.get_vocab() == own.get_vocab()
    for text in ("ab  12?", "a   b\n\n9", "<eos>abab 1234567"):
        assert back(text)["input_ids"] == own(text)["input_ids"]
    assert back.chat_template == gguf_files.TEMPLATE


def test_tokenizer_of_sentencepieces_kind_has_scores_in_the_order_of_its_merges(tmp_path):
    from transformers import LlamaTokenizer

    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256))]
    pieces += ["▁", "a", "b", "c", "ab", "abc", "▁a", "bc"]
    merges = [("a", "b"), ("ab", "c"), ("▁", "a"), ("b", "c")]
    own = LlamaTokenizer(vocab={x: i for i, x in enumerate(pieces)}, merges=merges)
    folder = model_folder(tmp_path / "model", tokenizer=own, vocab_size=len(pieces) + 3)
    found = gguf_vocabulary.of(folder, len(pieces) + 3)
    assert (found.kind, found.merges, found.space) == ("llama", None, True)
    by_word = dict(zip(found.tokens, found.scores, strict=True))
    assert by_word["ab"] > by_word["abc"] > by_word["▁a"] > by_word["bc"] > by_word["a"]
    kinds = dict(zip(found.tokens, found.kinds, strict=True))
    assert [kinds[x] for x in ("<unk>", "<s>", "<0x41>", "ab")] == [2, 3, 6, 1]
    assert found.tokens[-1] == f"[PAD{len(pieces) + 2}]"
    shutil.copy(merged(folder, "f32"), tmp_path / "alone.gguf")
    (parent,) = open_parents([str(tmp_path / "alone.gguf")], [tmp_path]).values()
    back = open_tokenizer(parent.folder)
    for text in ("abc a", "cab bc", "é a"):
        assert back(text)["input_ids"] == own(text)["input_ids"]


def test_frequencies_of_llama_3_are_those_of_transformers(tmp_path):
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    rope = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    rope |= {"original_max_position_embeddings": 64, "rope_theta": 10000.0}
    folder = model_folder(tmp_path / "model", rope_parameters=rope)
    file = merged(folder, "f32")
    found = {x.name: x.data for x in gguf.GGUFReader(file).tensors}["rope_freqs.weight"]
    config = AutoModelForCausalLM.from_pretrained(folder).config
    wanted, _ = ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")
    plain = 1 / 10000.0 ** (torch.arange(0, 16, 2) / 16)
    assert torch.allclose(plain / torch.tensor(found), wanted, rtol=1e-5)
    assert len({*found.tolist()}) > 2


def test_rows_that_do_not_pack_are_float16(tmp_path):
    folder = model_folder(tmp_path / "model", intermediate_size=72)
    file = merged(folder, "q8_0")
    kinds = {x.name: x.tensor_type.name for x in gguf.GGUFReader(file).tensors}
    assert (kinds["blk.0.ffn_down.weight"], kinds["blk.0.ffn_up.weight"]) == ("F16", "Q8_0")


def test_tokenizer_without_a_form_in_gguf_is_told_and_left_out(tmp_path, family):
    folder = model_folder(tmp_path / "model")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(family() / "base" / name, folder)
    data = json.loads((folder / "tokenizer.json").read_text())
    kept = [x for x in data["model"]["vocab"].items() if x[1] < len(gguf_files.WORDS)]
    data["model"]["vocab"] = dict(kept)
    (folder / "tokenizer.json").write_text(json.dumps(data))
    with pytest.warns(MergeWarning, match=r"no tokenizer: it is a WordLevel, expected a BPE"):
        file = merged(folder, "f32")
    assert gguf_header.read(file).metadata["tokenizer.ggml.model"] == "none"


def test_words_that_are_split_in_a_way_without_a_name_leave_the_tokenizer_out(tmp_path):
    folder = model_folder(tmp_path / "model", tokenizer=byte_level(split_by(r"\w+")))
    with pytest.warns(MergeWarning, match=r"no tokenizer: it splits words in a way that has no na"):
        merged(folder, "f32")


@pytest.mark.parametrize("kind", ["gpt-neox", "mixtral"])
def test_other_classes_are_refused_before_anything_is_merged(tmp_path, family, kind):
    recipe = f"merge_method: passthrough\nmodels: [{{model: {family(kind)}/base}}]\n"
    with pytest.raises(ParameterError, match=r"^--gguf: expected a model of llama, .*convert_hf"):
        api.merge(recipe, tmp_path / "out", how=Writing(gguf="q8_0"))
    assert not (tmp_path / "out").exists()


def test_rotary_positions_without_a_form_are_refused(tmp_path):
    config = {"model_type": "llama", "rope_parameters": {"rope_type": "longrope"}}
    with pytest.raises(ParameterError, match=r"positions of the type 'longrope' are not written"):
        gguf_export.check("f32", config, [])


def test_without_the_package_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setattr(gguf_export.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ParameterError, match=r"pip install 'mergetune\[gguf\]'"):
        gguf_export.check("f32", {"model_type": "llama"}, [])
