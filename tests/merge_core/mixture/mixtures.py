"""Configurations of mixtures on the tiny families, as plain data."""

from __future__ import annotations

from typing import Any

PROMPTS = {
    "base": ["all of it"],
    "one": ["add 1+2", "plus"],
    "two": ["sort bca"],
    "three": ["what is it?", "say more", "no"],
}


def expert(name: str, **keys: Any) -> dict[str, Any]:
    return {"source_model": name, "positive_prompts": PROMPTS[name], **keys}


def mixture(*experts: Any, **keys: Any) -> dict[str, Any]:
    """A configuration of mergekit-moe; experts are names of the family or whole entries."""
    entries = [expert(x) if isinstance(x, str) else x for x in experts or ("one", "two", "three")]
    return {"base_model": "base", "experts": entries, **keys}


SHARED = [expert("base", residual_scale=0.1)]
