"""Whose ``search`` is it? In new processes, whose working directory has decoys of all names."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEAVY = {"torch", "optuna", "transformers", "lm_eval", "scipy", "datasets", "pandas"}
OURS = "print(sorted(sys.modules[x].__file__ for x in ('merge_core', 'evaluators', 'search')))"


@pytest.fixture
def decoys(tmp_path: Path) -> Path:
    """A working directory as a user's may be."""
    for name in ("search.py", "evaluators.py", "merge_core/__init__.py"):
        file = tmp_path / "notebooks" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("print('decoy')\n")
    return tmp_path / "notebooks"


def python(folder: Path, *arguments: str) -> tuple[int, str, str]:
    """Run Python in a folder; return its exit code, output and errors."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout, done.stderr


def test_decoys_do_shadow_our_packages_without_a_guard(decoys: Path) -> None:
    for name in ("search", "evaluators", "merge_core"):
        assert python(decoys, "-c", f"import {name}") == (0, "decoy\n", "")


def test_import_takes_our_packages_though_the_working_directory_has_others(decoys: Path) -> None:
    code = f"import mergetune, sys, search.cli, evaluators.cost, merge_core.api; {OURS}"
    expected = [str(ROOT / name / "__init__.py") for name in ("evaluators", "merge_core", "search")]
    assert python(decoys, "-c", code) == (0, f"{expected}\n", "")


def test_script_in_a_folder_with_decoys_takes_our_packages(decoys: Path) -> None:
    (decoys / "mine.py").write_text("import mergetune\nprint(mergetune.score.__module__)\n")
    assert python(decoys.parent, "notebooks/mine.py") == (0, "mergetune\n", "")


@pytest.mark.parametrize("name", ["search", "evaluators", "merge_core"])
def test_module_of_the_user_that_was_imported_before_is_named_in_one_clear_error(
    decoys: Path, name: str
) -> None:
    code, _, err = python(decoys, "-c", f"import {name}, mergetune")
    file = decoys / (f"{name}/__init__.py" if name == "merge_core" else f"{name}.py")
    assert code == 1
    assert err.splitlines()[-1] == (
        f"ImportError: {file} was imported as {name!r}, a name that a package of mergetune has; "
        "rename that file, or do not import it in this process, and start Python again"
    )


def test_folder_without_code_that_was_imported_before_is_named_too(tmp_path: Path) -> None:
    (tmp_path / "search").mkdir()
    hidden = "import sys; sys.path = [p for p in sys.path if p != sys.argv[1]]; import search"
    code, _, err = python(
        tmp_path, "-c", f"{hidden}; sys.path += sys.argv[1:]; import mergetune", str(ROOT)
    )
    assert code == 1
    assert f"ImportError: {tmp_path / 'search'} was imported as 'search'" in err


def test_our_own_packages_may_be_imported_before(tmp_path: Path) -> None:
    code = "import search.cli, mergetune; print(mergetune.__version__)"
    assert python(tmp_path, "-c", code)[0] == 0


def test_module_form_is_the_command_line_under_its_own_name(decoys: Path) -> None:
    code, out, err = python(decoys, "-m", "mergetune", "--help")
    assert (code, err) == (0, "")
    assert "Usage: mergetune [OPTIONS] COMMAND" in out
    assert "decoy" not in out
    assert "methods" in python(decoys, "-m", "mergetune", "methods", "--help")[1]


def test_command_works_beside_decoys(decoys: Path) -> None:
    (entry,) = re.findall(
        r'^mergetune = "(.+):(\w+)"$', (ROOT / "pyproject.toml").read_text(), re.M
    )
    script = decoys / "mergetune-command"  # as pip writes it, and in the worst place
    script.write_text("import sys\nfrom {} import {}\nsys.exit({}())\n".format(*entry, entry[1]))
    code, out, err = python(decoys, str(script), "--help")
    assert (code, err) == (0, "")
    assert "Usage: mergetune [OPTIONS] COMMAND" in out
    assert "decoy" not in out


def test_import_is_light(tmp_path: Path) -> None:
    code = "import mergetune, sys; print(*{name.partition('.')[0] for name in sys.modules})"
    _, out, _ = python(tmp_path, "-c", code)
    assert "search" in out.split()
    assert not HEAVY & set(out.split())
