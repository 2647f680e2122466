import os
from pathlib import Path

import huggingface_hub
import pytest

from merge_core.errors import CheckpointError, ParameterError
from merge_core.parents.companions import CHATS
from merge_core.parents.locate import (
    PICKLED,
    UNWANTED,
    WANTED,
    local_folder,
    locate,
    not_local,
    relative_to,
)


def folder_of(reference, roots):
    return locate(reference, roots).model.folder


@pytest.fixture
def roots(tmp_path):
    for place in ("study/model", "cwd/model", "cwd/owner/name", "cwd/other"):
        (tmp_path / place).mkdir(parents=True)
    return [tmp_path / "study", tmp_path / "cwd"]


def test_folder_beside_the_file_goes_before_that_in_the_working_directory(roots):
    assert folder_of("model", roots) == roots[0] / "model"
    assert folder_of("other", roots) == roots[1] / "other"


@pytest.mark.parametrize("name", ["a" * 300, "a\0b", "~nobody-of-that-name/x"])
def test_text_that_no_folder_can_have_as_its_name_is_no_folder(roots, name):
    assert local_folder(name, roots) is None


def test_existing_folder_goes_before_a_hub_id(roots):
    assert folder_of("owner/name", roots) == roots[1] / "owner" / "name"


def test_absolute_path_and_dots_are_followed(roots):
    assert folder_of(str(roots[1] / "other"), roots) == roots[1] / "other"
    assert folder_of("../cwd/other", roots) == roots[1] / "other"


def test_file_is_no_model_folder(roots):
    (roots[0] / "file").touch()
    assert local_folder("file", roots) is None


@pytest.mark.parametrize("reference", ["./x", "../x", "/x", "~/x", "a/b/c"])
def test_reference_that_can_only_be_a_path_is_not_asked_from_the_hub(reference, roots):
    for look in (locate, not_local):
        with pytest.raises(
            CheckpointError, match=rf"model '{reference}': no such folder in .*/study or"
        ):
            look(reference, roots)


def test_what_may_be_a_hub_id_is_told_apart_from_what_is_here(roots):
    assert not_local("nobody/name", roots) == ["nobody/name"]
    assert not_local("nobody/name@main+nobody/lora", roots) == ["nobody/name", "nobody/lora"]
    assert not_local("model+nobody/lora", roots) == ["nobody/lora"]
    assert not_local("model", roots) == []


@pytest.mark.parametrize("text", ["a@b@c", "a+b+c", "a+b@c@d", "a@", "+a", "a+"])
def test_reference_with_too_many_signs_or_an_empty_part_is_refused(text, roots):
    with pytest.raises(ParameterError, match=r"^model .*: expected path, path@revision or path\+l"):
        locate(text, roots)


@pytest.mark.parametrize("reference", ["a/b@main", "a/b+lora", "a+b+c@d@e"])
def test_folder_whose_name_is_the_whole_text_goes_first(reference, roots):
    (roots[1] / reference).mkdir(parents=True)
    assert folder_of(reference, roots) == roots[1] / reference


def test_adapter_is_located_beside_its_model(roots):
    found = locate("model+other", roots)
    assert (found.model.folder, found.lora.folder) == (roots[0] / "model", roots[1] / "other")
    assert found.seen_from(roots[0]) == "./model+../cwd/other"


def test_revision_of_a_folder_is_refused(roots):
    with pytest.raises(CheckpointError, match=r"^model 'model': is the folder .*no revision 'v1'"):
        locate("model@v1", roots)


def test_hub_id_that_is_not_to_be_had_is_named_with_the_folders_tried(roots):
    with pytest.raises(
        CheckpointError,
        match=r"^model 'nobody/nothing': no folder of that name in .*/study or .*/cwd, and not",
    ):
        folder_of("nobody/nothing", roots)


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub that gives snapshots with the files whose patterns are asked for; notes the calls."""
    calls = []

    def snapshot_download(path, revision, allow_patterns, ignore_patterns=()):
        if allow_patterns == [CHATS]:
            return str(tmp_path / revision)
        calls.append((path, revision, allow_patterns))
        folder = tmp_path / "cache" / path / "snapshots" / f"commit-of-{revision}"
        folder.mkdir(parents=True, exist_ok=True)
        file = "model.safetensors" if path == "safe/one" else "pytorch_model.bin"
        if any(Path(file).match(pattern) for pattern in allow_patterns):
            (folder / file).touch()
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return calls


def test_only_safetensors_and_text_files_are_downloaded(roots, hub):
    locate("safe/one", roots)
    assert hub == [("safe/one", None, list(WANTED))]
    assert not any("bin" in pattern or "py" in pattern for pattern in WANTED)


def test_weights_are_left_on_the_hub_where_they_are_not_wanted(roots, hub):
    for path in ("safe/one", "pickled/one"):
        folder = locate(path, roots, weights=False).model.folder
        assert [*folder.iterdir()] == []
    assert len(hub) == 2
    assert not any("safetensors" in pattern for _, _, wanted in hub for pattern in wanted)
    assert {"config.json", "tokenizer*"} <= set(hub[0][2])


def test_what_is_fetched_is_what_is_read_or_copied_and_no_weights_of_other_formats():
    from huggingface_hub.utils import filter_repo_objects

    wanted = [
        *("model.safetensors", "model-00001-of-00002.safetensors", "model.safetensors.index.json"),
        *("config.json", "generation_config.json", "README.md", "chat_template.jinja"),
        *("tokenizer.json", "tokenizer.model.v3", "tekken.json", "qwen.tiktoken", "vocab.txt"),
        *("merges.txt", "preprocessor_config.json", "processor_config.json", "adapter_config.json"),
    ]
    unwanted = [
        *("consolidated.safetensors", "consolidated-00001-of-00002.safetensors", "params.json"),
        *("original/consolidated.00.pth", "original/params.json", "onnx/model.onnx", "a.gguf"),
        *("fp16/model.safetensors", "onnx/config.json", "modeling_own.py", "tokenizer.py"),
        *("pytorch_model.bin", "optimizer.pt", "image.png", "LICENSE.txt", "hf_quant_config.json"),
    ]
    found = filter_repo_objects(
        [*wanted, *unwanted], allow_patterns=[*WANTED], ignore_patterns=[*UNWANTED]
    )
    assert set(found) == set(wanted)


def test_additional_chat_templates_are_fetched_of_the_same_commit(roots, monkeypatch, hub):
    asked = []
    before = huggingface_hub.snapshot_download

    def noting(path, revision, allow_patterns, **more):
        asked.append((revision, allow_patterns))
        return before(path, revision, allow_patterns, **more)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", noting)
    locate("safe/one@v1", roots)
    assert asked[-1] == ("commit-of-v1", [CHATS])


def test_pickles_are_downloaded_where_there_are_no_safetensors(roots, hub):
    assert (folder_of("pickled/one", roots) / "pytorch_model.bin").is_file()
    assert [patterns for _, _, patterns in hub] == [list(WANTED), [*WANTED, *PICKLED]]


def test_revision_is_asked_for_and_pinned_to_the_commit(roots, hub):
    found = locate("safe/one@v1", roots)
    assert hub[0][:2] == ("safe/one", "v1")
    assert found.pinned() == found.seen_from(roots[0]) == "safe/one@commit-of-v1"
    assert locate("model+safe/one", roots).pinned() == "model+safe/one@commit-of-None"
    assert locate("model", roots).pinned() is None


def test_relative_reference_leads_back_to_the_folder(roots):
    reference = relative_to(roots[0] / "model", roots[1] / "out")
    assert reference == "../../study/model"
    (roots[1] / "out").mkdir()
    assert folder_of(reference, [roots[1] / "out"]) == roots[0] / "model"


def test_reference_to_a_folder_inside_is_marked_as_a_path(roots):
    assert relative_to(roots[0] / "model", roots[0]) == "./model"


def test_relative_reference_holds_where_a_folder_on_the_way_is_a_link(roots, tmp_path):
    (tmp_path / "deep" / "er").mkdir(parents=True)
    link = tmp_path / "link"
    os.symlink(tmp_path / "deep" / "er", link)
    (link / "out").mkdir()
    reference = relative_to(roots[0] / "model", link / "out")
    assert folder_of(reference, [link / "out"]).samefile(roots[0] / "model")
