"""Which host a study file gets, and what is said where it cannot be had."""

from __future__ import annotations

import pytest

from evaluators import vllm_running
from merge_core.errors import ParameterError
from search.engine import Engine
from search.hosts import InPlace, open_host


def nothing() -> None:
    pytest.fail("the tokenizer is asked for at the first build")


def test_without_a_name_candidates_are_built_in_place() -> None:
    host = open_host(Engine(device="cpu"), 100, nothing)
    assert isinstance(host, InPlace)
    assert (host.live, host.source.path, host.versions) == (None, "blocked", {})


def test_vllm_that_is_not_installed_is_answered_with_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(vllm_running, "find_spec", lambda name: None)
    with pytest.raises(ParameterError, match=r"not installed; run `pip install 'mergetune\[vllm\]"):
        open_host(Engine(name="vllm"), 100, nothing)
