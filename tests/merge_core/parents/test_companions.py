"""What goes with a merge beside the weights, and what does not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from merge_core.errors import CheckpointError, MergeWarning
from merge_core.parents.companions import companions, is_of_tokenizer

GO = (
    *("generation_config.json", "tokenizer.json", "tokenizer_config.json", "tokenizer.model"),
    *(
        "tokenizer.model.v3",
        "tekken.json",
        "qwen.tiktoken",
        "vocab.txt",
        "vocab.json",
        "merges.txt",
    ),
    *("source.spm", "bpe.codes", "special_tokens_map.json", "added_tokens.json"),
    *("preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json"),
    *("chat_template.jinja", "chat_template.json", "additional_chat_templates/tool_use.jinja"),
    *("feature_extractor_config.json", "dict.txt", "entity_vocab.json"),
)
STAY = (
    *("config.json", "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin"),
    *("consolidated.safetensors", "original/consolidated.00.pth", "original/tokenizer.model"),
    *("onnx/model.onnx", "onnx/config.json", "a.gguf", "optimizer.pt", "training_args.bin"),
    *("modeling_own.py", "tokenizer.py", "params.json", "hf_quant_config.json", "README.md"),
    *(
        "quantize_config.json",
        "trainer_state.json",
        "all_results.json",
        "requirements.txt",
        "notes.txt",
    ),
    *("adapter_config.json", "mergetune.json", ".hidden.json", "LICENSE.txt", "picture.png"),
)


def fill(folder: Path, names: tuple[str, ...]) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}")


def names(folder: Path) -> set[str]:
    return {str(file.relative_to(folder)) for file in companions(folder)}


def test_files_of_tokenizer_and_processor_go_and_weights_code_and_notes_stay(
    tmp_path: Path,
) -> None:
    fill(tmp_path, (*GO, *STAY))
    assert names(tmp_path) == set(GO)


def test_file_of_a_vocabulary_is_told_from_one_that_holds_for_any(tmp_path: Path) -> None:
    fill(tmp_path, GO)
    found = {file.name for file in companions(tmp_path) if not is_of_tokenizer(file)}
    assert found == {
        *("generation_config.json", "preprocessor_config.json", "processor_config.json"),
        *("video_preprocessor_config.json", "feature_extractor_config.json"),
    }


@pytest.mark.parametrize("name", ["tokenizer_notes.txt", "preprocessor_config.json"])
@pytest.mark.parametrize("there", [True, False])
def test_link_out_of_the_folder_is_left_with_a_warning(
    tmp_path: Path, name: str, there: bool
) -> None:
    (tmp_path / "model").mkdir()
    secret = tmp_path / "secret"
    if there:
        secret.write_text("{}")
        (tmp_path / "model" / name).symlink_to("../secret")
        with pytest.warns(MergeWarning, match=rf"{name}: not copied: it leads to .*/secret, out"):
            assert names(tmp_path / "model") == set()
    else:
        (tmp_path / "model" / name).symlink_to("../secret")
        assert names(tmp_path / "model") == set()


def test_folder_of_chat_templates_that_is_a_link_out_is_left(tmp_path: Path) -> None:
    fill(tmp_path, ("elsewhere/a.jinja", "model/config.json"))
    (tmp_path / "model" / "additional_chat_templates").symlink_to("../elsewhere")
    with pytest.warns(MergeWarning, match=r"a\.jinja: not copied"):
        assert names(tmp_path / "model") == set()


def test_links_inside_the_folder_and_inside_the_hubs_cache_of_the_model_are_followed(
    tmp_path: Path,
) -> None:
    model, other = tmp_path / "models--o--n", tmp_path / "models--o--other"
    fill(tmp_path, ("models--o--n/blobs/1", "models--o--other/blobs/2"))
    snapshot = model / "snapshots" / "c0"
    snapshot.mkdir(parents=True)
    (snapshot / "tokenizer.json").symlink_to("../../blobs/1")
    (snapshot / "tokenizer_config.json").symlink_to("tokenizer.json")
    assert names(snapshot) == {"tokenizer.json", "tokenizer_config.json"}
    (snapshot / "vocab.json").symlink_to(other / "blobs" / "2")
    with pytest.warns(MergeWarning, match="vocab"):
        assert names(snapshot) == {"tokenizer.json", "tokenizer_config.json"}


def test_pipes_and_large_files_are_left(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "tokenizer.model")
    with (tmp_path / "vocab.txt").open("wb") as stream:
        stream.truncate(2**28 + 1)
    with pytest.warns(MergeWarning, match=r"vocab\.txt: not copied: expected at most 268435456"):
        assert names(tmp_path) == set()


@pytest.mark.parametrize("name", ["generation_config.json", "tokenizer_config.json"])
def test_damaged_file_that_decides_how_a_model_behaves_is_an_error(
    tmp_path: Path, name: str
) -> None:
    (tmp_path / name).write_text("[" * 10**5)
    with pytest.raises(CheckpointError, match=rf"{name}: cannot be read: nested too deep"):
        companions(tmp_path)
