"""Who is asked for, and what travels with them."""

import pytest

from evaluators.jsonl import judge_key
from merge_core.errors import ParameterError
from search.workers import hire
from search.workers.hire import Staff


def test_a_share_of_a_clusters_cpus_needs_a_cluster():
    with pytest.raises(ParameterError, match="--ray-cpus says what workers take of a cluster"):
        Staff(2, ray_cpus=0.5)


def test_ray_that_is_missing_is_answered_with_the_extra_that_brings_it(monkeypatch):
    monkeypatch.setattr(hire, "find_spec", lambda name: None)
    with pytest.raises(ParameterError, match=r"--ray: .* run `pip install 'mergetune\[ray\]'`"):
        Staff(ray="local")
    assert Staff(2).workers == 2


def test_only_judges_keys_that_may_be_sent_go_to_other_machines(monkeypatch):
    for name in ("ONE_API_KEY", "TWO_API_KEY", "DB_PASSWORD"):
        monkeypatch.setenv(name, "secret")
    with judge_key.keys_sent(["ONE_API_KEY=a.example", "GONE_API_KEY=a.example"]):
        judge_key.send_keys(["DB_PASSWORD=db.example"])
        assert hire._keys() == {"ONE_API_KEY": "secret"}
