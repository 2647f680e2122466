"""What is written as JSON is JSON."""

from __future__ import annotations

import json
import math

import pytest

from merge_core.json_text import json_text


@pytest.mark.parametrize("number", [math.inf, -math.inf, math.nan])
def test_numbers_that_json_does_not_know_are_null(number: float) -> None:
    text = json_text({"a": [1.5, {"b": number}], "c": (number, "Infinity")})
    assert json.loads(text) == {"a": [1.5, {"b": None}], "c": [None, "Infinity"]}
