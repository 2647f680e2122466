import subprocess
import sys
from pathlib import Path

import pytest

import merge_core.methods
from merge_core.errors import UnknownNameError
from merge_core.methods.registry import METHODS, method

FOLDER = Path(merge_core.methods.__path__[0])


def test_every_file_with_a_declaration_is_registered_under_its_name():
    files = {path.stem for path in FOLDER.glob("*.py") if "\nMETHOD = " in path.read_text()}
    assert set(METHODS.names()) >= files
    assert {method(name).name for name in files} == files
    assert len(files) >= 6


def test_method_that_does_not_exist_is_answered_with_the_nearest():
    with pytest.raises(
        UnknownNameError,
        match=r"no merge method is named 'tie' \(did you mean 'ties'\?\); known: ",
    ):
        method("tie")


def test_plugin_that_is_no_method_is_refused(monkeypatch):
    monkeypatch.setitem(METHODS._added, "mine", object())
    with pytest.raises(AssertionError, match="mine is registered but is no Method"):
        method("mine")


def test_declarations_are_read_without_torch():
    code = (
        "import sys; from merge_core.methods.registry import METHODS, method;"
        "[method(name) for name in METHODS.names()]; print('torch' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"
