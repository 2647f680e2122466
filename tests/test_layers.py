"""The architecture diagram as a test: each layer imports only what lies below it."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAY_IMPORT = {
    "merge_core": {
        *("torch", "numpy", "safetensors", "transformers", "yaml", "huggingface_hub", "jinja2"),
        *("pydantic", "pydantic_core"),
    },
    "evaluators": {
        *("merge_core.errors", "merge_core.plugins", "merge_core.validation"),  # nothing else of it
        *("torch", "transformers", "lm_eval", "numpy", "pydantic", "datasets", "jinja2", "pyarrow"),
    },
    "search": {
        *("merge_core", "evaluators", "optuna", "cmaes", "numpy", "scipy", "yaml", "pydantic"),
        *("typer", "rich", "threadpoolctl", "filelock", "torch", "transformers"),
    },
    "mergetune": {"merge_core", "evaluators", "search", "pandas", "pydantic", "transformers"},
}
ONE_FILE = {  # what one file alone may import
    "testing.py": {"pytest"},  # the test classes that plugin authors subclass
    "process.py": {"vllm"},
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
