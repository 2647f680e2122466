import os
from pathlib import Path

import huggingface_hub
import pytest

from merge_core.errors import CheckpointError
from merge_core.references import WANTED, folder_of, is_path, local_folder, relative_to


@pytest.fixture
def roots(tmp_path):
    for place in ("study/model", "cwd/model", "cwd/owner/name", "cwd/other"):
        (tmp_path / place).mkdir(parents=True)
    return [tmp_path / "study", tmp_path / "cwd"]


def test_folder_beside_the_file_goes_before_that_in_the_working_directory(roots):
    assert folder_of("model", roots) == roots[0] / "model"
    assert folder_of("other", roots) == roots[1] / "other"


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
    assert is_path(reference)
    with pytest.raises(
        CheckpointError, match=rf"model '{reference}': no such folder in .*/study or"
    ):
        folder_of(reference, roots)


@pytest.mark.parametrize("reference", ["name", "owner/name"])
def test_hub_id_is_no_path(reference):
    assert not is_path(reference)


@pytest.mark.parametrize("reference", ["a/b@main", "a/b+lora"])
def test_revision_and_adapter_are_refused_unless_a_folder_has_that_name(reference, roots):
    with pytest.raises(
        CheckpointError, match=r"revisions \(@\) and adapters \(\+\) are not read yet"
    ):
        folder_of(reference, roots)
    (roots[1] / reference).mkdir(parents=True)
    assert folder_of(reference, roots) == roots[1] / reference


def test_hub_id_that_is_not_to_be_had_is_named_with_the_folders_tried(roots):
    with pytest.raises(
        CheckpointError,
        match=r"^model 'nobody/nothing': no folder of that name in .*/study or .*/cwd, and not",
    ):
        folder_of("nobody/nothing", roots)


def test_only_safetensors_and_text_files_are_downloaded(roots, monkeypatch):
    asked = {}

    def snapshot_download(reference, allow_patterns):
        asked[reference] = allow_patterns
        return "/cache/snapshot"

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    assert folder_of("nobody/something", roots) == Path("/cache/snapshot")
    assert asked == {"nobody/something": list(WANTED)}
    assert not any("bin" in pattern or "py" in pattern for pattern in WANTED)


def test_relative_reference_leads_back_to_the_folder(roots):
    reference = relative_to(roots[0] / "model", roots[1] / "out")
    assert reference == "../../study/model"
    (roots[1] / "out").mkdir()
    assert folder_of(reference, [roots[1] / "out"]) == roots[0] / "model"


def test_reference_to_a_folder_inside_is_marked_as_a_path(roots):
    assert relative_to(roots[0] / "model", roots[0]) == "./model"
    assert is_path("./model")


def test_relative_reference_holds_where_a_folder_on_the_way_is_a_link(roots, tmp_path):
    (tmp_path / "deep" / "er").mkdir(parents=True)
    link = tmp_path / "link"
    os.symlink(tmp_path / "deep" / "er", link)
    (link / "out").mkdir()
    reference = relative_to(roots[0] / "model", link / "out")
    assert folder_of(reference, [link / "out"]).samefile(roots[0] / "model")
