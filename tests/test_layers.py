"""The architecture diagram as a test: each layer imports only what lies below it."""

from __future__ import annotations

import ast
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAY_IMPORT = {
    "merge_core": {
        *("torch", "numpy", "safetensors", "transformers", "yaml", "huggingface_hub", "jinja2"),
        *("pydantic", "pydantic_core"),
    },
    "evaluators": {
        *("merge_core.errors", "merge_core.plugins", "merge_core.validation"),
        *(
            "merge_core.json_text",
            "merge_core.consent",
            "merge_core.templates",
            "merge_core.confined",
        ),  # nothing else of it
        *("torch", "transformers", "lm_eval", "numpy", "pydantic", "datasets", "jinja2", "pyarrow"),
        *("requests", "urllib3", "yaml"),
    },
    "search": {
        *("merge_core", "evaluators", "optuna", "cmaes", "numpy", "scipy", "yaml", "pydantic"),
        *("typer", "rich", "threadpoolctl", "filelock", "torch", "transformers", "sqlalchemy"),
        "huggingface_hub",
    },
    "mergetune": {"merge_core", "evaluators", "search", "pandas", "pydantic", "transformers"},
}
ONE_FILE = {  # what one file alone may import
    "testing.py": {"pytest"},  # the test classes that plugin authors subclass
    "gguf_export.py": {"gguf"},
    "gguf_file.py": {"filelock"},
    "gguf_tokenizer.py": {"tokenizers"},
    "proxy.py": {"grpc"},
    "process.py": {"vllm"},
    "on_ray.py": {"ray"},
    "on_mlflow.py": {"mlflow"},
    "on_tensorboard.py": {"tensorboard"},
    "on_wandb.py": {"wandb"},
    "weight_transfer.py": {"vllm"},
}


def imported(tree: ast.AST) -> set[str]:
    """Return the full name of everything that is imported, wherever in the file it stands."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import hides the layer"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def allowed(name: str, below: set[str]) -> bool:
    """Return whether ``name`` is one of the modules in ``below``, or part of one."""
    return any(f"{name}.".startswith(f"{module}.") for module in below)


def above(source: str, layer: str, file: str = "x.py") -> set[str]:
    """Return what a file of ``layer`` imports that does not lie below it."""
    below = MAY_IMPORT[layer] | ONE_FILE.get(file, set()) | set(sys.stdlib_module_names)
    names = imported(ast.parse(source))
    return {name for name in names if not allowed(name, below | {layer})}


@pytest.mark.parametrize("layer", MAY_IMPORT)
def test_layer_imports_only_what_lies_below_it(layer):
    files = sorted((ROOT / layer).rglob("*.py"))
    assert files
    found = {str(f.relative_to(ROOT)): above(f.read_text(), layer, f.name) for f in files}
    assert not {file: sorted(names) for file, names in found.items() if names}


@pytest.mark.parametrize(
    ("layer", "source", "name"),
    [
        ("merge_core", "import optuna", "optuna"),
        ("merge_core", "def f():\n    from evaluators import registry", "evaluators.registry"),
        ("merge_core", "import pytest", "pytest"),
        ("merge_core", "import torchvision", "torchvision"),
        ("merge_core", "import mergekit.merge", "mergekit.merge"),
        ("evaluators", "from merge_core import recipe", "merge_core.recipe"),
        ("evaluators", "from merge_core.plan.planner import Plan", "merge_core.plan.planner.Plan"),
        ("evaluators", "import search.cli as x", "search.cli"),
        ("evaluators", "import vllm", "vllm"),
        ("search", "import ray", "ray"),
        ("search", "import mergetune", "mergetune"),
    ],
)
def test_import_from_above_is_seen(layer, source, name):
    assert above(source, layer) == {name}


@pytest.mark.parametrize(
    ("layer", "source", "file"),
    [
        (
            "merge_core",
            "from torch.nn import functional\nimport json, merge_core.plan.planner",
            "x.py",
        ),
        ("merge_core", "import pytest", "testing.py"),
        ("evaluators", "from merge_core import errors\nimport lm_eval.tasks", "x.py"),
        ("search", "import merge_core.plan.planner\nfrom evaluators.registry import x", "x.py"),
    ],
)
def test_import_from_below_is_allowed(layer, source, file):
    assert above(source, layer, file) == set()


def test_relative_import_is_refused():
    with pytest.raises(AssertionError, match="line 1: a relative import hides the layer"):
        imported(ast.parse("from . import x"))


# Inside a package: its folders (and the files beside them) in the order in which they may know each
# other. Those that share a floor do not know each other.
FLOORS = {
    "merge_core": (
        *(
            {"errors", "processes", "printable", "consent"},
            {"confined_process"},
            {"confined"},
            {"plugins", "atomic_write", "json_text", "validation", "contract", "templates"},
            {"kernels"},
        ),
        *({"numerics"}, {"methods", "architecture"}, {"recipe"}, {"parents"}, {"tokenizer"}),
        *(
            {"plan"},
            {"mixture"},
            {"merge"},
            {"output"},
            {"inspect", "extract", "transplant", "api", "testing"},
        ),
    ),
    "evaluators": (
        *({"target", "clusters", "answer"}, {"facts"}),
        {"protocol", "choice_scores", "cluster_keys", "json_rows", "log_control", "patterns"},
        {"earlier_plugins", "chat_prompts", "thinking"},
        *({"registry", "engines", "testing"}, {"harness", "jsonl", "text", "cost"}),
        {"plugin_file", "consent", "python_function"},
    ),
    "search": (
        *({"samplers"}, {"spec"}, {"space", "scoring"}, {"trial"}, {"storage", "workers"}),
        *(
            {"callbacks", "report"},
            {"run", "bundle"},
            {"draft"},
            {"views"},
            {"options"},
            {"commands"},
            {"cli"},
        ),
    ),
}
# seconds to import
HEAVY = {"torch", "transformers", "lm_eval", "optuna", "datasets", "vllm", "ray"}


@dataclass(frozen=True)
class Edge:
    """One import; ``late`` inside a function, ``named`` under ``if TYPE_CHECKING``."""

    module: str
    imports: str
    late: bool
    named: bool


def parsed(package: str) -> dict[str, ast.Module]:
    """Return every module of a package by its full name."""
    found = {}
    for file in sorted((ROOT / package).rglob("*.py")):
        parts = file.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = ast.parse(
            file.read_text()
        )
    return found


def edges(trees: Mapping[str, ast.Module]) -> set[Edge]:
    """Return all imports, wherever they stand; of what is no module of these the name is whole."""
    found = set()
    for module, tree in trees.items():
        inside = {id(x) for f in ast.walk(tree) if isinstance(f, FUNCTION) for x in ast.walk(f)}
        named = {id(x) for block in ast.walk(tree) if is_typing(block) for x in ast.walk(block)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = imported(ast.Module([node], []))
                found |= {
                    Edge(module, as_module(name, trees), id(node) in inside, id(node) in named)
                    for name in names
                }
    return found


FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


def is_typing(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in (
        "TYPE_CHECKING",
        "typing.TYPE_CHECKING",
    )


def as_module(name: str, trees: Mapping[str, ast.Module]) -> str:
    """Return the module that an imported name stands in: ``a.b`` for the function ``a.b.c``."""
    return name if name in trees else name.rpartition(".")[0] or name


def climbing(found: set[Edge], package: str, floors: Sequence[set[str]]) -> set[tuple[str, str]]:
    """Return the imports between folders that do not lead to a lower floor."""
    height = {folder: i for i, floor in enumerate(floors) for folder in floor}
    wrong = set()
    for edge in found:
        if f"{edge.imports}.".startswith(f"{package}.") and edge.module != package:
            here, there = (name.split(".")[1:2] for name in (edge.module, edge.imports))
            if here != there and (not there or height[there[0]] >= height[here[0]]):
                wrong.add((edge.module, edge.imports))
    return wrong


def circle(found: set[Edge], trees: Mapping[str, ast.Module]) -> list[str]:
    """Return modules that import each other in a circle, annotations included, or none."""
    graph = {m: {e.imports for e in found if e.module == m and e.imports in trees} for m in trees}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def heavy(found: set[Edge]) -> set[str]:
    """Return the modules whose import imports a heavy library."""
    ahead = [edge for edge in found if not edge.late and not edge.named]
    slow = {edge.module for edge in ahead if edge.imports.partition(".")[0] in HEAVY}
    while more := {edge.module for edge in ahead if edge.imports in slow} - slow:
        slow |= more
    return slow


def hidden(found: set[Edge], trees: Mapping[str, ast.Module]) -> set[tuple[str, str]]:
    """Return the late imports of own modules that are not heavy: they could stand at the top."""
    own = {(e.module, e.imports) for e in found if e.late and e.imports in trees}
    return {(module, name) for module, name in own if name not in heavy(found)}


@pytest.fixture(scope="module")
def trees():
    return {package: parsed(package) for package in FLOORS}


@pytest.mark.parametrize("package", FLOORS)
def test_folder_imports_only_folders_on_lower_floors(trees, package):
    assert not climbing(edges(trees[package]), package, FLOORS[package])


@pytest.mark.parametrize("package", FLOORS)
def test_no_modules_import_each_other_in_a_circle(trees, package):
    assert not circle(edges(trees[package]), trees[package])


def test_only_what_imports_a_heavy_library_is_imported_late(trees):
    own = {name: tree for package in trees.values() for name, tree in package.items()}
    assert not hidden(edges(own), own)


def sources(**texts):
    """Modules of a package ``p``; a name's double underscore is a dot."""
    names = {f"p.{name.replace('__', '.')}": text for name, text in texts.items()}
    return {name: ast.parse(text) for name, text in {"p": "", **names}.items()}


@pytest.mark.parametrize(
    "text",
    [
        "from p.high.x import f",
        "import p.high.x",
        "from p import high",
        "def f():\n    from p.high import x",
        "if TYPE_CHECKING:\n    from p.high.x import F",
        "from p.beside import y",
    ],
)
def test_import_of_a_folder_that_is_not_lower_is_seen(text):
    given = sources(low="", low__m=text, low__n="", high="", high__x="", beside="", beside__y="")
    ((module, name),) = climbing(edges(given), "p", [{"low", "beside"}, {"high"}])
    assert (module, name.split(".")[1] in ("high", "beside")) == ("p.low.m", True)


def test_import_of_the_own_folder_or_of_a_lower_one_is_allowed():
    given = sources(low="", low__m="from p.low.n import f", low__n="", high="from p.low import m")
    assert not climbing(edges(given), "p", [{"low"}, {"high"}])


@pytest.mark.parametrize(
    "back", ["import p.a", "def f():\n    from p.a import g", "if TYPE_CHECKING:\n    import p.a"]
)
def test_circle_is_seen_also_where_it_is_late_or_for_annotations(back):
    given = sources(a="from p.b import f", b="from p.c import f", c=back)
    assert set(circle(edges(given), given)) == {"p.a", "p.b", "p.c"}
    given = sources(a="from p.b import f", b="from p.c import f", c="")
    assert circle(edges(given), given) == []


@pytest.mark.parametrize(
    ("imported", "late"),
    [
        ("", True),
        ("def f():\n    import torch", True),
        ("if TYPE_CHECKING:\n    import torch", True),
        ("import torch", False),
        ("from p.deep import f", False),
    ],
)
def test_late_import_is_seen_unless_it_saves_a_heavy_library(imported, late):
    given = sources(a="def f():\n    import p.b", b=imported, deep="import optuna.samplers")
    assert hidden(edges(given), given) == ({("p.a", "p.b")} if late else set())
