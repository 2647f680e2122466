"""The quickstart's saved record, made on one machine, is repeated on this one."""

import importlib.util
import json
import shutil
from pathlib import Path

import pytest

from search.storage.locate import open_study, winner

QUICKSTART = Path(__file__).resolve().parents[2] / "studies" / "quickstart"
BUNDLE = QUICKSTART / "saved" / "quickstart.zip"
AGREEMENT = json.loads((QUICKSTART / "saved" / "agreement.json").read_text())


def script():
    found = importlib.util.spec_from_file_location("save", QUICKSTART / "save.py")
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


@pytest.fixture
def moved(tmp_path):
    """The bundle and the models, elsewhere."""
    (tmp_path / "saved").mkdir()
    shutil.copytree(QUICKSTART / "models", tmp_path / "models")
    return Path(shutil.copy(BUNDLE, tmp_path / "saved"))


def test_the_saved_study_is_the_quickstart_and_small():
    spec, record = open_study(str(BUNDLE))
    text = (QUICKSTART / "study.yaml").read_text()
    assert len(record.trials) == 51
    assert str(spec.search.trials) in text
    assert spec.search.seed == 0
    assert BUNDLE.stat().st_size < 2**20
    assert winner(record)[1]["winner"]["minus_best_parent"]["low"] > 0
    assert {name.rpartition("/")[2] for name in record.about["parents"]} == {
        *("base", "add", "sort", "rev")
    }


def test_what_is_stated_of_other_machines_is_twice_the_most_that_was_measured():
    measured = [found["items"] for found in AGREEMENT["measured"].values()]
    assert AGREEMENT["elsewhere"] == max(2, 2 * max(measured))
    assert not any(found["weights"] for found in AGREEMENT["measured"].values())
    assert (AGREEMENT["here"], AGREEMENT["measured"]["here"]["differ"]) == (0, 0)


@pytest.mark.slow
@pytest.mark.timeout(600)  # half a minute on a quiet core
def test_every_trial_has_its_weights_and_scores_within_the_stated_number_of_items(moved):
    found = script().counted(moved)
    assert (found["trials"], found["weights"]) == (51, 0)
    assert found["scored"] > 5000
    assert found["items"] <= AGREEMENT["elsewhere" if found["environment"] else "here"]
