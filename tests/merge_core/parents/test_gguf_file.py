import json
import shutil
import struct
import threading
import time

import pytest
import torch

from merge_core.errors import CheckpointError, MergeWarning
from merge_core.output.model_card import licence
from merge_core.parents import gguf_file, gguf_header
from merge_core.parents.locate import locate, locate_here, not_local
from merge_core.parents.open import open_parents
from merge_core.tokenizer.parent_tokenizer import open_tokenizer
from tests.merge_core.parents import gguf_files


@pytest.fixture(scope="module")
def llama():
    return gguf_files.model()


@pytest.fixture(scope="module")
def root(tmp_path_factory, llama):
    """A folder with files of one model."""
    root = tmp_path_factory.mktemp("gguf")
    for kind in ("f32", "q8_0", "q4_1"):
        gguf_files.write(root / f"tiny.{kind}.gguf", llama, kind)
    return root


def opened(file, roots=()):
    (parent,) = open_parents([str(file)], [*roots, file.parent] if roots else [file]).values()
    return parent


@pytest.mark.parametrize("kind", ["f32", "q8_0", "q4_1"])
def test_parent_has_the_numbers_that_the_file_holds_under_the_names_of_its_class(root, llama, kind):
    parent = opened(root / f"tiny.{kind}.gguf")
    assert parent.tensors.keys() == llama.state_dict().keys()
    for name, x in llama.state_dict().items():
        assert parent.tensors[name].dtype == "F32"
        assert parent.tensor(name).equal(gguf_files.stored(x, kind)), name


@pytest.mark.parametrize(
    ("kind", "arch", "more"),
    [
        ("Llama", "llama", {"tie_word_embeddings": True}),
        ("Qwen2", "qwen2", {"layer_types": ["full_attention"] * 2}),
        ("Qwen3", "qwen3", {"head_dim": 128}),
    ],
)
def test_other_classes_are_read_alike(tmp_path, kind, arch, more):
    made = gguf_files.model(kind, **more)
    file = gguf_files.write(tmp_path / "tiny.gguf", made, "q8_0", arch=arch)
    parent = opened(file)
    for name in parent.tensors:
        assert parent.tensor(name).equal(gguf_files.stored(made.state_dict()[name], "q8_0"))
    assert not parent.architecture.lacking(parent.tensors)


def test_its_config_tokenizer_template_and_licence_are_found_as_those_of_a_folder(root, llama):
    parent = opened(root / "tiny.f32.gguf")
    tokenizer = open_tokenizer(parent.folder)
    assert parent.config["architectures"] == ["LlamaForCausalLM"]
    assert parent.config["num_key_value_heads"] == llama.config.num_key_value_heads
    assert tokenizer.get_vocab() == {word: i for i, word in enumerate(gguf_files.WORDS)}
    assert tokenizer.convert_ids_to_tokens(tokenizer("ab  1?")["input_ids"]) == [
        *("ab", "Ġ", "Ġ", "1", "?"),  # as GPT-2 splits words
    ]
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<eos>", "<pad>")
    assert tokenizer.chat_template == gguf_files.TEMPLATE
    assert licence(parent.folder) == "apache-2.0"


def test_digits_stand_alone_where_the_file_says_so_in_llama_cpps_words(tmp_path, llama):
    file = gguf_files.write(tmp_path / "tiny.gguf", llama, split="smollm")
    tokenizer = open_tokenizer(opened(file).folder)
    tokens = tokenizer.convert_ids_to_tokens(tokenizer("ab  12?")["input_ids"])
    assert tokens == ["ab", "ĠĠ", "1", "2", "?"]


def test_unknown_way_to_split_words_is_told(tmp_path, llama):
    file = gguf_files.write(tmp_path / "tiny.gguf", llama, split="new-one")
    with pytest.warns(MergeWarning, match=r"tiny\.gguf: its words are split as 'new-one' says"):
        opened(file)


def test_file_is_named_alone_by_its_folder_and_with_an_adapter(root, tmp_path, llama):
    only = tmp_path / "only"
    only.mkdir()
    shutil.copy(root / "tiny.f32.gguf", only)
    found = locate("only", [tmp_path])
    assert found.model.gguf == only / "tiny.f32.gguf"
    assert found.seen_from(only) == "./tiny.f32.gguf"
    (tmp_path / "lora").mkdir()
    for text in ("only/tiny.f32.gguf+lora", "only+lora"):
        found = locate(text, [tmp_path])
        assert (found.model.gguf, found.lora.folder) == (
            only / "tiny.f32.gguf",
            tmp_path / "lora",
        )
        assert found.seen_from(tmp_path) == "./only/tiny.f32.gguf+./lora"
        assert not_local(text, [tmp_path]) == []
        assert locate_here(text, [tmp_path]) == found.model.folder


def test_folder_with_several_files_wants_one_named(root):
    with pytest.raises(CheckpointError, match=r"has tiny\.f32\.gguf, .*; name the one that is me"):
        locate(str(root), [root])


def test_weights_of_other_formats_go_before_a_file_beside_them(root, tmp_path, llama):
    folder = tmp_path / "both"
    llama.save_pretrained(folder)
    shutil.copy(root / "tiny.q8_0.gguf", folder)
    assert locate("both", [tmp_path]).model.folder == folder
    assert locate("both/tiny.q8_0.gguf", [tmp_path]).model.gguf == folder / "tiny.q8_0.gguf"


def test_missing_file_is_told_without_asking_the_hub(tmp_path):
    for text in ("x.gguf", "owner/x.gguf", "x.gguf+lora"):
        with pytest.raises(CheckpointError, match=r"^model '.*x\.gguf': no such file in "):
            locate(text, [tmp_path])


def test_revision_of_a_file_is_refused(root):
    with pytest.raises(CheckpointError, match=r"is the file .*no revision 'v1'"):
        locate(f"{root}/tiny.f32.gguf@v1", [root])


def test_file_is_unpacked_once_and_again_when_it_is_another(root, tmp_path, llama):
    file = tmp_path / "tiny.gguf"
    shutil.copy(root / "tiny.f32.gguf", file)
    one = locate("tiny.gguf", [tmp_path]).model.folder
    assert one == locate(str(root / "tiny.f32.gguf"), [root]).model.folder  # by what it holds
    before = (one / "model.safetensors").stat().st_mtime_ns
    assert locate("tiny.gguf", [tmp_path]).model.folder == one
    gguf_files.write(file, gguf_files.model(seed=1))
    other = opened(file)
    assert other.folder != one
    assert (one / "model.safetensors").stat().st_mtime_ns == before
    assert other.digest != opened(root / "tiny.f32.gguf").digest


def test_digest_is_that_of_a_folder_with_the_same_weights(root, tmp_path, llama):
    llama.save_pretrained(tmp_path / "folder")
    one, other = opened(root / "tiny.f32.gguf"), opened(tmp_path / "folder")
    assert (one.digest, one.sums) == (other.digest, other.sums)


def test_files_beside_it_go_before_what_it_says_itself(root, tmp_path, llama):
    file = tmp_path / "tiny.gguf"
    shutil.copy(root / "tiny.f32.gguf", file)
    plain = opened(file)
    tokenizer = open_tokenizer(plain.folder)
    tokenizer.add_tokens(["<more>"])
    tokenizer.save_pretrained(tmp_path)
    config = {**plain.config, "rope_parameters": {"rope_type": "linear", "factor": 2.0}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [2, 3]}')
    parent = opened(file)
    assert "<more>" in open_tokenizer(parent.folder).get_vocab()
    assert parent.config["rope_parameters"]["factor"] == 2.0
    assert "[2, 3]" in (parent.folder / "generation_config.json").read_text()
    assert parent.digest == plain.digest
    assert {*gguf_file.sources(file)} >= {file, tmp_path / "config.json"}


def test_template_alone_beside_it_leaves_it_its_own_vocabulary(root, tmp_path):
    file = tmp_path / "tiny.gguf"
    shutil.copy(root / "tiny.f32.gguf", file)
    (tmp_path / "chat_template.jinja").write_text("own")
    tokenizer = open_tokenizer(opened(file).folder)
    assert tokenizer.chat_template == "own"
    assert len(tokenizer) == len(gguf_files.WORDS)


def test_config_of_another_model_beside_it_is_refused(root, tmp_path, llama):
    file = tmp_path / "tiny.gguf"
    shutil.copy(root / "tiny.f32.gguf", file)
    gguf_files.model(num_hidden_layers=3).config.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"config\.json: describes another model than tiny"):
        opened(file)


def test_file_without_a_tokenizer_has_none(tmp_path, llama):
    file = gguf_files.write(tmp_path / "tiny.gguf", llama, tokenizer=False, add=VOCABULARY)
    assert not any(opened(file).folder.glob("tokenizer*"))


VOCABULARY = {"llama.vocab_size": len(gguf_files.WORDS)}


def test_model_that_is_not_whole_is_refused(tmp_path, llama):
    name = "model.layers.1.mlp.up_proj.weight"
    file = gguf_files.write(tmp_path / "tiny.gguf", llama, leave=(name,))
    with pytest.raises(CheckpointError, match=rf"finds no {name} in it \(1 such\)"):
        opened(file)
    assert not any(gguf_file.cache().glob(".*"))  # nothing half is left


def test_architecture_that_transformers_does_not_read_is_told(tmp_path, llama):
    file = gguf_files.write(tmp_path / "tiny.gguf", llama, arch="olmo2", names_of="llama")
    with pytest.raises(CheckpointError, match=r"tiny\.gguf: transformers does not read it: .*olmo"):
        opened(file)


def test_frequencies_that_transformers_leaves_out_are_told(tmp_path, llama):
    class More:
        config = llama.config

        @staticmethod
        def state_dict():
            return {**llama.state_dict(), "rope_freqs": torch.ones(8)}

    file = gguf_files.write(tmp_path / "tiny.gguf", More)
    with pytest.warns(MergeWarning, match=r"tiny\.gguf: rope_freqs.* is not read"):
        opened(file)


def test_without_the_package_it_is_said_what_to_install(tmp_path, llama, monkeypatch):
    file = gguf_files.write(tmp_path / "tiny.gguf", llama)
    monkeypatch.setattr(gguf_file.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(CheckpointError, match=r"pip install 'mergetune\[gguf\]'"):
        opened(file)


def test_processes_that_begin_at_once_unpack_it_once(root, tmp_path, monkeypatch):
    file, made = tmp_path / "tiny.gguf", []
    shutil.copy(root / "tiny.f32.gguf", file)
    with file.open("ab") as stream:
        stream.write(b"\0")

    def fill(folder, *_):
        made.append(folder)
        time.sleep(0.2)
        (folder / "config.json").write_text("{}")

    monkeypatch.setattr(gguf_file, "_fill", fill)
    threads = [threading.Thread(target=gguf_file.as_folder, args=(file,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1


def text(value):
    return struct.pack("<Q", len(value)) + value


HEAD = b"GGUF" + struct.pack("<I", 3)
KEY = text(b"k")
DAMAGED = {
    "empty": b"",
    "zeros": b"\0" * 64,
    "version": b"GGUF" + struct.pack("<IQQ", 9, 0, 0),
    "tensors": HEAD + struct.pack("<QQ", 2**60, 0),
    "keys": HEAD + struct.pack("<QQ", 0, 2**60),
    "long list": HEAD + struct.pack("<QQ", 0, 1) + KEY + struct.pack("<IIQ", 9, 0, 2**60),
    "long texts": HEAD + struct.pack("<QQ", 0, 1) + KEY + struct.pack("<IIQ", 9, 8, 2**60),
    "list of lists": HEAD + struct.pack("<QQ", 0, 1) + KEY + struct.pack("<IIQ", 9, 9, 1),
    "long text": HEAD + struct.pack("<QQ", 0, 1) + KEY + struct.pack("<IQ", 8, 2**63),
    "no text": HEAD + struct.pack("<QQ", 0, 1) + KEY + struct.pack("<IQ", 8, 1) + b"\xff",
    "long name": HEAD + struct.pack("<QQ", 0, 1) + struct.pack("<Q", 2**40),
    "axes": HEAD + struct.pack("<QQ", 1, 0) + text(b"t") + struct.pack("<I", 9) + b"\0" * 99,
    "large": HEAD
    + struct.pack("<QQ", 1, 0)
    + text(b"t")
    + struct.pack("<I4QIQ", 4, 2**63, 2**63, 2**63, 2**63, 0, 0),
    "alignment": HEAD
    + struct.pack("<QQ", 0, 1)
    + text(b"general.alignment")
    + struct.pack("<II", 4, 0),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_damaged_header_is_one_error_at_once(tmp_path, kind):
    file = tmp_path / "tiny.gguf"
    file.write_bytes(DAMAGED[kind])
    with pytest.raises(CheckpointError, match=r"tiny\.gguf: damaged or no GGUF file: "):
        opened(file)


def test_file_that_is_cut_short_is_refused(root, tmp_path):
    whole = (root / "tiny.f32.gguf").read_bytes()
    for left in (100, 3000, len(whole) // 2):
        (tmp_path / "tiny.gguf").write_bytes(whole[:left])
        with pytest.raises(CheckpointError, match=r"tiny\.gguf: damaged or no GGUF file: it"):
            opened(tmp_path / "tiny.gguf")


def test_part_of_a_file_in_several_says_how_to_join_them(tmp_path, llama):
    file = gguf_files.write(tmp_path / "tiny.gguf", llama, add={"split.count": 3})
    with pytest.raises(CheckpointError, match=r"is one of 3 parts .*llama-gguf-split --merge"):
        opened(file)


def test_model_far_larger_than_its_file_takes_no_memory(tmp_path, llama):
    file = gguf_files.write(tmp_path / "tiny.gguf", llama, add={"llama.feed_forward_length": 2**30})
    with pytest.raises(CheckpointError, match=r"describes a model of \d+ weights and has \d+"):
        opened(file)


def test_header_knows_the_numbers_of_each_tensor(root, llama):
    found = gguf_header.read(root / "tiny.q8_0.gguf")
    assert sum(found.tensors.values()) == sum(x.numel() for x in llama.state_dict().values())
    assert found.metadata["general.architecture"] == "llama"
    assert found.metadata["tokenizer.ggml.tokens"] == len(gguf_files.WORDS)
