import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from evaluators.registry import EVALUATORS
from search import cli
from search.run.check import check
from search.samplers.registry import SAMPLERS
from search.spec import sections
from search.spec.changes import MAY_CHANGE
from search.spec.study_file import StudyFile

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = (
    "README.md",
    "STUDIES.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "dev/LOG.md",
    "studies/examples/README.md",
    *(f"docs/{page.name}" for page in sorted(DOCS.glob("*.md"))),
)
LINES_OF_THE_README = 150


def page(name):
    return (DOCS / name).read_text(encoding="utf-8")


def blocks(name, language):
    found = re.findall(rf"```{language}\n(.*?)```", page(name), flags=re.DOTALL)
    return [yaml.safe_load(block) for block in found]


def test_readme_is_short():
    assert len(README.splitlines()) <= LINES_OF_THE_README


def test_every_page_is_in_the_table_of_contents():
    named = set(re.findall(r"[\w-]+\.md", (ROOT / "mkdocs.yml").read_text(encoding="utf-8")))
    assert named == {file.name for file in DOCS.glob("*.md")}


def test_page_of_commands_has_every_command():
    found = re.findall(r"^\| `mergetune ([\w-]+)", page("commands.md"), flags=re.MULTILINE)
    known = {c.callback.__name__.replace("_", "-") for c in cli.app.registered_commands}
    assert set(found) == known


def test_page_of_tasks_shows_every_evaluator():
    entries = [entry for block in blocks("tasks.md", "yaml") for entry in block["score"]]
    assert {entry["evaluator"] for entry in entries} == set(EVALUATORS.names())


def test_page_of_searching_has_every_sampler():
    named = re.findall(r"^\| `([\w-]+)` \|", page("searching.md"), flags=re.MULTILINE)
    assert set(named) == set(SAMPLERS.names())


SECTIONS = {"search": sections.Search, "engine": sections.Engine}


def test_keys_and_defaults_in_the_tables_are_those_of_study_files():
    found = re.findall(r"^\| `([\w.]+)` \| (.*) \| (.*) \|$", page("study-file.md"), re.M)
    rows = {row[0]: row[2] for row in found}
    items = sections.Items()
    assert rows["items"] == f"{items.search}, {items.select}, {items.report}"
    assert rows["keep_answers"] == str(sections.KEEP_ANSWERS)
    assert rows.keys() >= StudyFile.declared().keys() - {"name"}
    for section, kind in SECTIONS.items():
        told = {k: row for k, row in rows.items() if k.startswith(f"{section}.")}
        assert told == {f"{section}.{k}": _words(getattr(kind(), k)) for k in kind.declared()}


def _words(default):
    if isinstance(default, sections.Race):
        return f"{{margin: {default.margin}, error: {default.error}}}"
    return "none" if default is None else str(default)


def test_what_may_change_in_the_table_is_what_may_change():
    rows = dict(re.findall(r"^\| (may|may, but|may not) \| (.*?) \|", page("study-file.md"), re.M))
    named = {kind: re.findall(r"`([\w.]+)`", text) for kind, text in rows.items()}
    assert (*named["may"], *named["may, but"]) == tuple(MAY_CHANGE)
    keys = {f"search.{key}" for key in sections.Search.declared()}
    keys |= StudyFile.declared().keys() - {"search"}
    assert set(named["may not"]) == keys - set(MAY_CHANGE)
    assert "all else of `engine`" in rows["may not"]


SHIPPED = [*ROOT.glob("studies/*/*.yaml"), *ROOT.glob("studies/examples/**/*.yaml")]
FETCHED = ("results", "smollm2")  # `make smollm2` fetches its base first; test_smollm2.py runs it


@pytest.mark.parametrize("file", sorted(f for f in SHIPPED if not {*FETCHED} & {*f.parts}))
def test_shipped_studies_and_recipes_pass_check(file):
    assert check(file).facts["models"]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_of_the_documents_lead_somewhere(document):
    text = (ROOT / document).read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", text)
    missing = [link for link in links if not (ROOT / document).parent.joinpath(link).exists()]
    assert not missing


def test_readme_has_the_study_that_make_quickstart_runs():
    (shown,) = map(yaml.safe_load, re.findall(r"```yaml\n(.*?)```", README, flags=re.DOTALL))
    file = ROOT / "studies" / "quickstart" / "study.yaml"
    assert shown == yaml.safe_load(file.read_text(encoding="utf-8"))


@pytest.mark.parametrize("document", DOCUMENTS)
def test_make_targets_exist(document):
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    text = (ROOT / document).read_text(encoding="utf-8")
    for target in re.findall(r"(?:`|^\$ )make ([\w-]+)", text, flags=re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


@pytest.mark.slow
def test_site_is_built_without_a_warning(tmp_path):
    command = [sys.executable, "-W", "ignore", "-m", "mkdocs", "build", "--site-dir", tmp_path]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert {page.stem for page in DOCS.glob("*.md")} <= {
        page.stem for page in tmp_path.glob("*.html")
    }
