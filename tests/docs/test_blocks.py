"""Every code block of the documentation is run, or says why not and is at least valid."""

import contextlib
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from evaluators import plugin_file
from evaluators.jsonl.python_function import SCORERS
from evaluators.registry import EVALUATORS
from search.samplers.registry import SAMPLERS
from tests.docs.blocks import CHECKS, PAGES, ROOT, blocks, check_command, commands

ALL = [block for page in PAGES for block in blocks(page)]
TO_RUN = [page for page in PAGES if any(block.runs for block in blocks(page))]
LITTLE = {"items": {"search": 12, "select": 8, "report": 12}, "trials": 1}


@pytest.mark.parametrize("block", ALL, ids=str)
def test_block_is_valid(block):
    assert block.language in CHECKS, f"{block}: name its language, one of {', '.join(CHECKS)}"
    CHECKS[block.language](block)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_in_the_text_of_a_page_exist(page):
    for command in re.findall(r"`mergetune ([^`]+)`", page.read_text(encoding="utf-8")):
        words = re.sub(r"[\[\]]|\|\S*", " ", command).split()
        check_command(words)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_page_has_no_code_that_is_only_indented(page):
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    options = r"    options:\n(      .*\n)+"  # of mkdocstrings
    assert not re.findall(r"\n\n    \S.*", re.sub(options, "", text))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Return a folder that looks like a clone, with the shipped models, where all is run."""
    for name in ("quickstart", "examples"):
        source = ROOT / "studies" / name
        shutil.copytree(source, tmp_path / "studies" / name, ignore=_made_by_runs)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    for registry in (EVALUATORS, SAMPLERS, SCORERS):
        monkeypatch.setattr(registry, "_added", dict(registry._added))
    monkeypatch.setattr(plugin_file, "_loaded", dict(plugin_file._loaded))
    monkeypatch.syspath_prepend(tmp_path / "studies" / "quickstart")  # where the pages import from
    return tmp_path


def _made_by_runs(folder, names):
    return {name for name in names if name in ("results", "__pycache__", "quickstart")}


@pytest.mark.slow
@pytest.mark.parametrize("page", TO_RUN, ids=lambda page: page.name)
def test_blocks_of_a_page_run_one_after_the_other(page, folder, mergetune):
    names = {}
    for block in (block for block in blocks(page) if block.runs):
        if "fewer" in block.marks:
            _fewer(folder)
        if block.into is not None:
            _into(Path.cwd() / block.into, yaml.safe_load(block.text))
        elif block.title is not None:
            with open(block.title, "w", encoding="utf-8") as file:
                file.write(block.text)
        elif block.language == "python":
            with contextlib.chdir(os.getcwd()):
                exec(compile(block.text, str(block), "exec"), names)
        else:
            _commands(block, mergetune)


def _into(file, part):
    whole = yaml.safe_load(file.read_text(encoding="utf-8"))
    file.write_text(yaml.safe_dump({**whole, **part}), encoding="utf-8")


def _fewer(folder):
    for file in folder.rglob("study.yaml"):
        if "examples" not in file.parts and not (file.parent / "results").exists():
            study = yaml.safe_load(file.read_text(encoding="utf-8"))
            study["items"] = LITTLE["items"]
            study["search"]["trials"] = LITTLE["trials"]
            file.write_text(yaml.safe_dump(study), encoding="utf-8")


def _commands(block, mergetune):
    asked = commands(block)
    if "other numbers" in block.marks:
        asked = [(command, []) for command, _ in asked]
    *first, last = asked
    for command, shown in first:
        _command(block, command, shown, mergetune, fails=False)
    _command(block, *last, mergetune, fails="fails" in block.marks)


def _command(block, command, shown, mergetune, *, fails):
    words = shlex.split(command, comments=True)
    if words[0] == "cd":
        os.chdir(words[1])
        return
    if words[0] == "mergetune":
        code, out, err = mergetune(*words[1:])
    else:
        done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
        code, out, err = done.returncode, done.stdout, done.stderr
    assert bool(code) == fails, f"{block}: {command}: exit code {code}\n{out}\n{err}"
    said = [_plain(line) for line in (out + err).splitlines()]
    for line in map(_plain, shown):
        if line in ("", "..."):
            continue
        assert line in said, f"{block}: {command}: does not say {line!r}\n{out}\n{err}"
        said = said[said.index(line) + 1 :]


def _plain(line):
    """Return what a line says, whatever its numbers are, in whatever table it stands."""
    words = re.sub(r"[─-╿]", " ", line)
    words = re.sub(r"\b([0-9a-f]{6,64})\b", "#", words)  # digests
    return " ".join(re.sub(r"\d+(\.\d+)?", "#", words).split())
