"""Which host a study file gets, and what is said where it cannot be had."""

from __future__ import annotations

from pathlib import Path

import pytest

from evaluators.engines.vllm import process
from merge_core.errors import ParameterError
from merge_core.kernels import compiled
from merge_core.parents.residency import Placement
from search.spec.sections import Engine
from search.trial.backends import InPlace, check_device, device_of, open_host
from search.trial.worker import Worker
from tests.search import toy

MAPPED = Placement("mapped", "", 0)


def nothing() -> None:
    pytest.fail("the tokenizer is asked for at the first build")


def test_without_a_name_candidates_are_built_in_place() -> None:
    host = open_host(Engine(device="cpu"), MAPPED, Path(), 100, nothing)
    assert isinstance(host, InPlace)
    assert (host.live, host.source.path, host.versions) == (None, "blocked", {})


def test_vllm_that_is_not_installed_is_answered_with_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(process, "find_spec", lambda name: None)
    with pytest.raises(ParameterError, match=r"not installed; run `pip install 'mergetune\[vllm\]"):
        open_host(Engine(name="vllm"), MAPPED, Path(), 100, nothing)


@pytest.mark.parametrize(("where", "merging"), [("mapped", "cpu"), ("device", "cuda")])
def test_kernels_are_for_where_merges_run_and_tables_within_their_room(
    where: str, merging: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(compiled, "wanted", lambda choice, device, entries: asked.append(device))
    host = open_host(Engine(device="cuda"), Placement(where, "", 1000), Path(), 100, nothing)
    assert asked == [merging]
    host.source.known.get("large", lambda: list(range(10)))
    assert host.source.known.used == 0


def test_candidates_for_vllm_are_made_on_the_cpu() -> None:
    assert device_of(Engine(name="vllm")) == "cpu"
    assert device_of(Engine(device="cuda:1")) == "cuda:1"


@pytest.mark.parametrize("device", ["mps", "hpu:0", "xla", "cuda:99"])
def test_a_device_that_is_not_there_is_one_line_that_says_which_are(device: str) -> None:
    rule = rf"^engine\.device: '{device}' cannot be used on this machine: .*; here are cpu"
    with pytest.raises(ParameterError, match=rule) as told:
        check_device(Engine(device=device))
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("engine", [Engine(), Engine(device="cpu"), Engine(name="vllm")])
def test_a_device_that_is_there_is_taken(engine: Engine) -> None:
    check_device(engine)


def test_the_device_is_looked_at_before_tasks_and_models(tmp_path: Path) -> None:
    text = toy.SHORT + "engine: {device: 'cuda:99'}\n"  # neither the models nor the task exist
    with pytest.raises(ParameterError, match=r"^engine\.device"):
        Worker(toy.spec_of(text, tmp_path).data, tmp_path)
