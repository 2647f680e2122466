"""Every kind of file that a stranger may send, and the public road on which it is read."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random

from evaluators.protocol import Evaluator
from merge_core import api
from merge_core.output.live_model import Candidate
from merge_core.parents.weight_files import tensor_shapes
from merge_core.tokenizer.parent_tokenizer import open_tokenizer
from search.draft.evolve import How, import_evolve
from search.draft.from_recipe import import_mergekit
from search.draft.tasks import Asked
from search.report.listing import Listing
from search.report.so_far import SoFar
from search.report.summary import Report
from search.run import check as checks
from search.spec import study_file
from search.spec.storage_url import SQLITE
from search.storage.locate import open_study, winner
from search.storage.open import open_record
from search.trial.builder import Builder
from search.trial.tasks import open_tasks
from tests.fuzz import spoil

Spoiler = Callable[[Random, bytes], bytes]
SPECIALS = 20  # one input of so many has a link, a pipe or a folder in place of a file


@dataclass(frozen=True)
class Kind:
    """A kind of input: the files of the template that are spoilt, and what reads them."""

    name: str
    files: Mapping[str, Spoiler]
    call: Callable[[Path], None]
    specials: bool = True  # whether what is no file may lie in their places

    def spoilt(self, random: Random, template: Path) -> spoil.Files:
        """Return one file, or two, in a spoilt form."""
        names = random.sample(list(self.files), min(len(self.files), random.choice((1, 1, 1, 2))))
        found: dict[str, spoil.Content] = {}
        for name in names:
            if self.specials and random.randrange(SPECIALS) == 0:
                found[name] = spoil.special(random, name)
            else:
                found[name] = self.files[name](random, (template / name).read_bytes())
        return found


def _merge(name: str) -> Callable[[Path], None]:
    def call(folder: Path) -> None:
        api.merge(folder / f"{name}.yaml", folder / "out")

    call.__qualname__ = call.__name__ = f"merge_{name}"
    globals()[call.__name__] = call  # so that it can be sent to another process
    return call


def recipe(folder: Path) -> None:
    """As ``mergetune check`` and ``mergetune merge``, of three recipes."""
    for name in ("recipe", "slices", "moe"):
        checks.check(folder / f"{name}.yaml")
        api.merge(folder / f"{name}.yaml", folder / f"out-{name}")


def study(folder: Path) -> None:
    """As ``mergetune check``, and what ``mergetune run`` does before its first trial."""
    for name in STUDIES:
        checks.check(folder / name)
        _prepare(folder / name)


def weights(folder: Path) -> None:
    """Read shapes as ``check`` does, then merge."""
    tensor_shapes(folder / "one")
    api.merge(folder / "weights.yaml", folder / "out")


def index(folder: Path) -> None:
    """Read shapes as ``check`` does, then merge."""
    tensor_shapes(folder / "sharded")
    api.merge(folder / "sharded.yaml", folder / "out")


def config(folder: Path) -> None:
    """Merge to a folder and to a live candidate."""
    api.merge(folder / "weights.yaml", folder / "out")
    Candidate().build(api.planned(folder / "weights.yaml"))


def tokenizer(folder: Path) -> None:
    """Open it as a study does, then build a vocabulary with it."""
    open_tokenizer(folder / "one")
    api.merge(folder / "vocabulary.yaml", folder / "out")


def questions(folder: Path) -> None:
    """Open the tasks of a study and read every item's prompt."""
    _prepare(folder / "study.yaml")


def task_file(folder: Path) -> None:
    """Open an lm-eval task of the user's own."""
    _prepare(folder / "asked.yaml")


def chat_template(folder: Path) -> None:
    """Take it over into a merge, then fill it."""
    api.merge(folder / "chat.yaml", folder / "out")
    _prepare(folder / "chatted.yaml")


def storage(folder: Path) -> None:
    """Check a study with this storage, then make it, or open what it names."""
    text = (folder / "storage.txt").read_text(encoding="utf-8", errors="surrogateescape")
    plain = (folder / "study.yaml").read_text().rpartition("storage:")[0]
    (folder / "study.yaml").write_text(f"{plain}storage: {json.dumps(text)}\n", encoding="utf-8")
    spec = study_file.read(folder)
    checks.check(folder)
    if spec.storage.startswith(f"{SQLITE}{folder}/"):  # so that it is not made anywhere else
        open_record(spec.storage, "small", create=True)
    else:
        open_study(str(folder))


def database(folder: Path) -> None:
    """As ``mergetune trials``, ``best`` and ``report`` of somebody's database."""
    _, record = open_study(f"{SQLITE}{folder}/stored.db")
    Listing.of_record(record, sort="value").csv()
    SoFar.of(record)
    if record.summary is not None:
        Report.from_json(record.summary)
        winner(record)


def evolve(folder: Path) -> None:
    """As ``mergetune import-evolve``."""
    import_evolve(folder / "evolve.yaml", How(), folder / "made", tasks=False)


def plain_recipe(folder: Path) -> None:
    """As ``mergetune import-mergekit``, with a file of own questions."""
    asked = Asked(files=[folder / "questions.jsonl"])
    import_mergekit(folder / "banded.yaml", asked, 20, folder / "made", tasks=True)


def _prepare(file: Path) -> None:
    spec = study_file.read(file)
    tasks = open_tasks(spec, Builder(spec).tokenizer)
    evaluators: list[Evaluator] = list(tasks.evaluators.values())
    for evaluator in evaluators:
        evaluator.fingerprint()


HOSTILE = (
    *("{{ 9**9**9 }}", "{{ 'x' * 10**10 }}", "{{ [0] * 10**9 }}", "{{ '%999999999d' % 1 }}"),
    *("{{ '{:>999999999}'.format(1) }}", "{{ 'a' | center(10**10) }}", "{{ 1 | round(10**8) }}"),
    "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "{% for i in range(99999) %}{% for j in range(99999) %}{{ 'x' * 20 }}{% endfor %}{% endfor %}",
    "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    *("{{ lipsum(n=10**7) }}", "{{ ''.__class__.__mro__ }}", "{% include '/etc/passwd' %}"),
    *(
        "{{ raise_exception('a\\nb') }}",
        "{% extends 'x' %}",
        "{{ messages.append(1) }}",
        "{{ x.y }}",
    ),
    *(
        "{{ messages | map('upper') | list }}",
        "{{ 1 / 0 }}",
        "{{ strftime_now('%') }}",
        "{{ [] | first }}",
    ),
    *(
        "{% set n = namespace() %}{{ n.a.b }}",
        "{{ messages | tojson(indent=10**9) }}",
        "{{ '\\ud800' }}",
    ),
    *(
        "{{ 'a' | batch(10**10) | list }}",
        "{{ cycler() }}",
        "{{ joiner(1)(2) }}",
        "{{ " + "(" * 400,
    ),
    *("{{ " + "-" * 5000 + "1 }}", "{{ 1 " + "+ 1 " * 20000 + "}}", "{% if 1 %}" * 300),
    *(
        "{{ 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!' | regex_replace('(a+)+$', '') }}",
        "{{ dict(a=1).b.c }}",
    ),
)


def jinja(random: Random, data: bytes) -> bytes:
    """Return a spoilt form of a template."""
    if random.randrange(2):
        return spoil.raw(random, data, data[::-1])
    start = random.randrange(len(data) + 1) if random.randrange(2) else len(data)
    return data[:start] + random.choice(HOSTILE).encode() + data[start:]


def templates_in(*keys: str) -> Spoiler:
    """Return what spoils a YAML file, or one of the templates under its keys."""

    def spoilt(random: Random, data: bytes) -> bytes:
        if random.randrange(2):
            return spoil.yaml_file(random, data)
        key, text = random.choice(keys), random.choice(HOSTILE)
        lines = [x for x in data.decode().splitlines() if not x.startswith(f"{key}:")]
        return "\n".join([*lines, f"{key}: {json.dumps(text)}", ""]).encode()

    return spoilt


def urls(random: Random, data: bytes) -> bytes:
    """Return a spoilt storage URL."""
    if random.randrange(2):
        return spoil.text(random, data)
    host = random.choice(
        ("", "localhost", "user:pass@host", "u:p@ss@h:99999", "[::1", "h:port", "%zz@h")
    )
    kinds = (
        "sqlite",
        "sqlite+pysqlite",
        "sqlite+aiosqlite",
        "postgresql",
        "mysql",
        "mysql+x",
        "oracle",
    )
    kind = random.choice((*kinds, "redis", "http", "file", "SQLITE", "", "a b", "mssql+pyodbc"))
    names = (
        "study.db",
        ":memory:",
        "?mode=memory",
        "a%20b.db",
        "a?b.db",
        "{x}.db",
        "${HOME}/x.db",
        "a" * 300,
    )
    name = random.choice(
        (*names, "file:x?mode=memory&uri=true", "../../x.db", "one", "", "é#.db", "${NO}")
    )
    slashes = random.choice(("://", ":///", ":////", ":/", "//"))
    return f"{kind}{slashes}{host}/{name}".encode()


STUDIES = ("study.yaml", "mixed.yaml")
RECIPES = ("recipe.yaml", "slices.yaml", "moe.yaml")
KINDS = {
    kind.name: kind
    for kind in (
        Kind("recipe", dict.fromkeys(RECIPES, spoil.yaml_file), recipe),
        Kind("study", dict.fromkeys(STUDIES, spoil.yaml_file), study),
        Kind("weights", {"one/model.safetensors": spoil.safetensors}, weights),
        Kind("pickle", {"pickled/pytorch_model.bin": spoil.binary}, _merge("pickled")),
        Kind("gguf", {"packed/model.gguf": spoil.gguf}, _merge("unpacked")),
        Kind("database", {"stored.db": spoil.database}, database, specials=False),
        Kind("index", {"sharded/model.safetensors.index.json": spoil.json_file}, index),
        Kind(
            "config",
            {"one/config.json": spoil.json_file, "one/generation_config.json": spoil.json_file},
            config,
        ),
        Kind(
            "tokenizer",
            {"one/tokenizer.json": spoil.json_file, "one/tokenizer_config.json": spoil.json_file},
            tokenizer,
        ),
        Kind(
            "adapter",
            {
                "adapter/adapter_config.json": spoil.json_file,
                "adapter/adapter_model.safetensors": spoil.safetensors,
            },
            _merge("adapted"),
        ),
        Kind("card", {"one/README.md": spoil.text}, _merge("weights")),
        Kind("jsonl", {"questions.jsonl": spoil.json_lines}, questions),
        Kind(
            "task file",
            {
                "tasks/own.yaml": templates_in("doc_to_text", "doc_to_target", "doc_to_choice"),
                "tasks/docs.jsonl": spoil.json_lines,
            },
            task_file,
        ),
        Kind(
            "chat template",
            {
                "one/chat_template.jinja": jinja,
                "two/chat_template.jinja": jinja,
                "chat.yaml": templates_in("chat_template"),
            },
            chat_template,
        ),
        Kind("evolve", {"evolve.yaml": spoil.yaml_file}, evolve),
        Kind(
            "import",
            {"banded.yaml": spoil.yaml_file, "questions.jsonl": spoil.json_lines},
            plain_recipe,
        ),
        Kind("storage", {"storage.txt": urls}, storage, specials=False),
    )
}
