import os

import pytest

from merge_core.errors import CheckpointError
from search.draft.models import Paths, look
from tests.search.real import QUICKSTART

MODELS = QUICKSTART / "models"


@pytest.fixture
def paths(tmp_path, monkeypatch):
    (tmp_path / "models").symlink_to(MODELS)
    monkeypatch.chdir(tmp_path)
    return lambda folder: Paths((tmp_path,), tmp_path / folder)


def test_a_model_shows_its_layers_and_type(tmp_path):
    seen = look(str(MODELS / "add"), (tmp_path,))
    assert (seen.layers, seen.dtype) == (4, "bfloat16")


def test_a_model_of_the_hub_shows_nothing_and_a_missing_folder_is_refused(tmp_path):
    assert look("owner/name", (tmp_path,)) is None
    with pytest.raises(CheckpointError, match=r"\./name"):
        look("./name", (tmp_path,))


def test_a_model_with_several_stacks_has_no_number_of_layers(family, tmp_path):
    assert look(str(family("t5") / "one"), (tmp_path,)).layers is None


@pytest.mark.parametrize(
    ("folder", "reference", "wanted"),
    [
        (".", "models/add", "models/add"),
        ("study", "models/add", "../models/add"),
        ("a/b", "models/add", "../../models/add"),
        ("study", "models/base+models/add", "../models/base+../models/add"),
        ("study", "owner/name@main", "owner/name@main"),
        ("study", "owner/name+models/add@x", "owner/name+../models/add@x"),
        ("study", str(MODELS / "add"), str(MODELS / "add")),
        (
            "study",
            '{"model": {"path": "models/a+b"}}',
            {"model": {"path": "models/a+b"}},
        ),
    ],
)
def test_models_are_named_as_the_study_files_folder_sees_them(paths, folder, reference, wanted):
    assert paths(folder).model(reference) == wanted


def test_a_folder_with_a_sign_in_its_name_is_named_as_a_whole(paths, tmp_path):
    (tmp_path / "a+b@c").mkdir()
    assert paths("study").model("a+b@c") == "../a+b@c"


def test_a_way_that_a_link_leads_astray_is_named_by_where_it_ends(paths, tmp_path):
    (tmp_path / "far" / "study").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "far" / "study")
    named = paths("link").model("models/add")
    assert os.path.samefile(tmp_path / "far" / "study" / named, MODELS / "add")
