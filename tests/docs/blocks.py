"""Code blocks of the pages: what they are, and what holds of each without running it.

A comment above a block says what tests make of it: ``<!-- not run: why -->``, ``<!-- fails -->``
(its last command ends with an error), ``<!-- fewer -->`` (study files get few items and trials
first: the page is about the same study, and a test must be short), ``<!-- other numbers -->`` (what
is shown came of the whole study and is not compared), ``<!-- into FILE -->`` (a reader is told to
edit the YAML file so). Several are joined by ``;``.
"""

import json
import re
import shlex
from configparser import ConfigParser
from dataclasses import dataclass
from pathlib import Path

import typer
import yaml

from merge_core.recipe.read import reading_of
from merge_core.recipe.yaml_document import Document
from search import cli
from search.spec import study_file
from search.spec.study_file import StudyFile

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^( *)```(.*)$")
MARKS = re.compile(
    r"<!-- (not run: .+|(?:fails|fewer|other numbers|into [\w.]+)(?:; [a-z ]+)*) -->"
)
STOCK = {  # what a part of a study file is put into
    "recipe": {
        "merge_method": "task_arithmetic",
        "base_model": "base",
        "models": [{"model": "one", "parameters": {"weight": {"low": 0.0, "high": 1.5}}}],
    },
    "score": [{"evaluator": "lm_eval", "task": "gsm8k"}],
}


@dataclass(frozen=True)
class Block:
    """One fenced block of a page."""

    page: Path
    line: int
    language: str
    title: str | None
    text: str
    marks: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"

    @property
    def into(self) -> str | None:
        """The YAML file that it is a part of."""
        return next((mark[5:] for mark in self.marks if mark.startswith("into ")), None)

    @property
    def runs(self) -> bool:
        """Whether running the page does something with it."""
        return (
            self.title is not None
            or self.into is not None
            or (
                self.language in ("console", "python")
                and not any(mark.startswith("not run") for mark in self.marks)
            )
        )


def blocks(page: Path) -> list[Block]:
    """Return the blocks of a page, in order."""
    found, marks, begun = [], (), None
    lines = page.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, start=1):
        fence = FENCE.match(line)
        if begun is None and (marked := MARKS.search(line)):
            marks = tuple(mark.strip() for mark in marked[1].split(";"))
        elif begun is None and fence:
            begun = (number, len(fence[1]), fence[2])
        elif begun is not None and fence:
            start, indent, info = begun
            text = "\n".join(x[indent:] for x in lines[start : number - 1]) + "\n"
            language, _, rest = info.partition(" ")
            title = re.search(r'title="([^"]+)"', rest)
            found.append(Block(page, start, language, title and title[1], text, marks))
            begun, marks = None, ()
    return found


def commands(block: Block) -> list[tuple[str, list[str]]]:
    """Return the commands of a console block, each with the lines of output that are shown."""
    found: list[tuple[str, list[str]]] = []
    for line in block.text.splitlines():
        if found and found[-1][0].endswith("\\") and not found[-1][1]:
            found[-1] = (found[-1][0][:-1] + line, [])
        elif line.startswith("$ "):
            found.append((line[2:], []))
        else:
            assert found, f"{block}: output before the first command"
            found[-1][1].append(line)
    return found


def check_command(words: list[str]) -> None:
    """Hold a command line of ours to the options that there are."""
    group = typer.main.get_command(cli.app)
    context = group.make_context("mergetune", ["--help"], resilient_parsing=True)
    if words[0].startswith("-"):  # of mergetune itself
        known = {option for one in group.get_params(context) for option in one.opts}
        assert words[0] in known, f"mergetune {words[0]}: no such option"
        return
    command = group.get_command(context, words[0])
    assert command is not None, f"mergetune {words[0]}: no such command"
    inner = command.context_class(command, info_name=words[0], parent=context)
    command.make_parser(inner).parse_args(list(words[1:]))


def _console(block: Block) -> None:
    for command, _ in commands(block):
        words = shlex.split(command, comments=True)
        if words[0] == "mergetune" and words[1:2] != ["--help"]:
            check_command(words[1:])


def _yaml(block: Block) -> None:
    documents = [Document(str(block), x, {}) for x in yaml.safe_load_all(block.text)]
    data = documents[0].data
    if data.keys() <= StudyFile.declared().keys():
        whole = Document(str(block), {**STOCK, **data}, {})
        study_file.of_document(whole, block.page.parent)
    elif data.keys() & {"merge_method", "moe", "experts", "slices", "modules"}:
        reading_of(documents)
    else:
        assert data.keys() & {"genome", "task", "dataset_path"}, f"{block}: what is it?"


def _python(block: Block) -> None:
    compile(block.text, str(block), "exec")


def _json_lines(block: Block) -> None:
    for line in block.text.splitlines():
        json.loads(line)


def _toml(block: Block) -> None:
    ConfigParser().read_string(block.text)  # near enough; tomllib is younger than Python 3.10


CHECKS = {
    "console": _console,
    "yaml": _yaml,
    "python": _python,
    "jsonl": _json_lines,
    "toml": _toml,
}
