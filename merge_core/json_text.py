"""JSON that every reader takes: Python also writes Infinity and NaN, which no standard knows."""

from __future__ import annotations

import json
import math
from typing import Any


def json_text(data: Any) -> str:
    """Return data as indented JSON; a number that is infinite or NaN becomes null."""
    return json.dumps(finite(data), indent=1, allow_nan=False)


def finite(data: Any) -> Any:
    """Return plain data with None for every number that is infinite or NaN."""
    if isinstance(data, dict):
        return {key: finite(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [finite(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data
