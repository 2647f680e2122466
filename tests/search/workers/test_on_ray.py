"""Actors of a Ray cluster: of one machine, and of two of which one has nothing of the study."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from filelock import FileLock

from merge_core.errors import MergeError, ParameterError
from search.run.study import run
from search.space.starting_points import baselines
from search.spec import study_file
from search.storage.open import open_record
from search.trial.worker import Job, Worker
from search.workers.hire import Staff
from search.workers.opening import Opening
from search.workers.permissions import Permissions
from search.workers.sameness import deciding
from tests.search.real import QUICKSTART, Quiet, without_costs, write_study

pytest.importorskip("ray", reason="Ray is not installed; install mergetune[ray]")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A study with all that it needs in one folder, its jobs, and what comes of them here."""
    folder = tmp_path_factory.mktemp("ray") / "there"
    shutil.copytree(QUICKSTART / "models", folder / "models")
    shutil.copytree(QUICKSTART / "tasks", folder / "tasks")
    file = write_study(folder / "study", models=folder / "models")
    file.write_text(file.read_text().replace(str(QUICKSTART / "tasks"), "../tasks"))
    spec = study_file.read(file)
    home = Worker(spec.data, spec.folder)
    jobs = [Job(x.recipe, "search") for x in baselines(home.spec, home.builder.space)[:8]]
    opening = Opening(spec.data, str(spec.folder), None, Permissions(), directory=os.getcwd())
    return opening, deciding(home), jobs, [told(home.run(job)) for job in jobs]


def told(result):
    assert result.failure is None, result.failure.text
    return result.weights_digest, result.scores


HIDE = ["unshare", "-rm", "sh", "-c", 'mount -t tmpfs none "$0" && exec "$@"']


def can_hide():
    """Whether a folder can be hidden from a process here, so that it is as on another machine."""
    return not subprocess.run(
        ["unshare", "-rm", "true"], capture_output=True, check=False
    ).returncode


def start_machine(head, hidden):
    """Start a machine of the cluster from which a folder is hidden."""
    ray = [str(Path(sys.executable).with_name("ray")), "start", "--block", "--address", head]
    sizes = ["--num-cpus", "1", "--object-store-memory", str(80 * 2**20)]
    hide = [*HIDE, str(hidden)] if can_hide() else []
    return subprocess.Popen(
        [*hide, *ray, *sizes],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


@pytest.fixture(scope="module")
def alone():
    """The right to start clusters: several that start at once on few cores wait for each other."""
    with FileLock(Path(tempfile.gettempdir()) / "mergetune-tests-of-ray.lock"):
        yield


@pytest.fixture(scope="module")
def machines(study, alone):
    """The address of a cluster of two machines of one core, and the process of the second."""
    from ray.cluster_utils import Cluster

    few = {"object_store_memory": 80 * 2**20, "include_dashboard": False}
    few |= {"num_cpus": 1, "num_gpus": 2}  # it is said to have them, and nobody uses them
    cluster = Cluster(initialize_head=True, head_node_args=few)
    second = start_machine(cluster.address, Path(study[0].folder).parent)
    yield cluster.address, second
    os.killpg(second.pid, signal.SIGKILL)
    second.wait()
    cluster.shutdown()


def test_a_cluster_without_room_is_told_in_one_line(machines, tmp_path):
    text = write_study(tmp_path).read_text().replace("device: cpu", "device: cuda")
    (tmp_path / "study.yaml").write_text(text)
    words = r"--ray: each worker takes 1 GPU and 1 CPU, got 3 workers and a cluster with room for 1"
    with pytest.raises(ParameterError, match=words):
        run(tmp_path, Quiet(), lambda: False, staff=Staff(3, ray=machines[0]))


def test_a_machine_has_room_for_as_many_as_its_gpus_and_cpus_allow(machines):
    from search.workers.on_ray import Cluster, Needs

    cluster = Cluster(machines[0])
    try:
        assert cluster.gpus == 2
        found = [cluster.room(Needs(*needs)) for needs in ((0.5, 1), (0.25, 2), (1, 1), (1, 3))]
    finally:
        cluster.close()
    assert found == [2, 1, 1, 0]


def test_machines_that_would_give_other_scores_are_refused(study, machines):
    from search.workers import on_ray

    opening, expected, jobs, _ = study
    cluster, needs, other = on_ray.Cluster(machines[0]), on_ray.Needs(1, 0), {"torch": "1.0.0"}
    workers = on_ray.OnRay(cluster, 1, needs, lambda _: opening, {**expected, **other})
    try:
        words = r"machine .* would give other scores: torch is \S+ \(here 1.0.0\)"
        with pytest.raises(MergeError, match=words):
            workers.call("run", jobs[0]).result(60)
    finally:
        workers.close()


def test_two_machines_give_the_results_of_one_whoever_dies(study, machines, capfd):
    from search.workers import on_ray

    opening, expected, jobs, wanted = study
    cluster, needs = on_ray.Cluster(machines[0]), on_ray.Needs(1, 0)
    while cluster.room(needs) < 2:
        assert machines[1].poll() is None
        time.sleep(0.2)
    workers = on_ray.OnRay(cluster, 2, needs, lambda _: opening, expected)
    try:
        answers = [workers.call("run", job) for job in jobs]
        while not (second := [x for x in workers._workers if x is not None and is_away(x)]):
            workers.call("run", jobs[0]).result(120)  # by the first, so far
        answers += [workers.call("run", job) for job in jobs]
        kill(second[0])
        answers += [workers.call("run", job) for job in jobs]
        assert [told(answer.result(120)) for answer in answers] == 3 * wanted
        answers = [workers.call("run", job) for job in jobs]
        os.killpg(machines[1].pid, signal.SIGKILL)
        assert [told(answer.result(120)) for answer in answers] == wanted
    finally:
        workers.close()
    assert capfd.readouterr().out == ""  # where a command prints JSON
    kept = Path(os.environ["MERGETUNE_CACHE"]) / "shipped"
    if not can_hide():
        pytest.skip("a machine without the files was not tried: `unshare -rm` is refused here")
    assert len([*kept.iterdir()]) == 4  # the study's files and three models, once


def is_away(actor):
    """Whether an actor has opened the study on the second machine."""
    return actor._open and (actor._apart or not can_hide())


def kill(actor):
    os.kill(int(re.search(r"process (\d+)", actor.where)[1]), signal.SIGKILL)


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("127.0.0.1:1", "--ray 127.0.0.1:1: no cluster is to be reached there: Connection refused"),
        ("ray://127.0.0.1:1", "--ray: expected local, or auto or HOST:PORT of a cluster that this"),
        ("nearby", "--ray: expected local, or auto or HOST:PORT of a cluster that this machine"),
    ],
)
def test_a_cluster_that_is_not_there_is_told_in_one_line(address, words):
    from search.workers import on_ray

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(ParameterError) as caught:
        on_ray.Cluster(address)
    assert str(caught.value).startswith(words)
    assert "\n" not in str(caught.value)
    assert signal.getsignal(signal.SIGTERM) is before


def trials(folder, staff):
    """What a small study finds, trial by trial, by these workers."""
    file = write_study(folder, trials=3)
    report = run(file, Quiet(), lambda: False, staff=staff)
    spec = study_file.read(file)
    stored = open_record(spec.storage, spec.name).trials
    kept = [
        (t.number, t.recipe.plain(), t.weights_digest, t.search.scores, t.state) for t in stored
    ]
    return kept, without_costs(report.to_json())


def test_a_study_on_a_local_cluster_is_that_of_as_many_processes(alone, tmp_path):
    wanted, summary = trials(tmp_path / "processes", Staff(2))
    found, same = trials(tmp_path / "ray", Staff(2, ray="local"))
    assert found == wanted
    assert {**same, "study": summary["study"]} == summary
