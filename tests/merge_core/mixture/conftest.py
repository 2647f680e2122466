from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.merge_core.conftest import Planned


@pytest.fixture
def mixed(planned: Callable[..., Planned]) -> Callable[..., Planned]:
    """Return the plan of a recipe, given as plain data, on a family or on the models in a root."""

    def get(data: object, kind: str = "llama", dtype: str = "float32", **more: Path) -> Planned:
        return planned(yaml.safe_dump(data), kind, dtype, **more)

    return get
