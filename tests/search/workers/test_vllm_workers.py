"""Workers with a vLLM each, in processes of their own; ``make test-vllm``."""

import os

import pytest

from search.space.starting_points import baselines
from search.spec import study_file
from search.trial.worker import Job, Worker
from search.workers.devices import cpus_here, gpus_here, gpus_per_worker, shares
from search.workers.opening import Opening
from search.workers.permissions import Permissions
from search.workers.processes import Processes
from tests.search.real import write_study

pytestmark = pytest.mark.vllm


@pytest.mark.parametrize("options", ["", ", tensor_parallel_size: 2"])
def test_each_worker_has_a_vllm_of_its_own_and_the_scores_are_those_of_hf(tmp_path, options):
    file = write_study(tmp_path / "study")
    home = Worker(study_file.read(file).data, file.parent)
    jobs = [Job(x.recipe, "search") for x in baselines(home.spec, home.builder.space)[:4]]
    wanted = [home.run(job) for job in jobs]
    file.write_text(file.read_text().replace("{device: cpu,", f"{{name: vllm{options},"))
    spec = study_file.read(file)
    count = 1 if options else 2
    each = gpus_per_worker(spec.engine, count, gpus_here())
    given = shares(count, cpus_here(), gpus_here(), spec.engine.threads, each)
    if options:  # vLLM for CPUs wants the cores of each part of a model
        both = {"VLLM_CPU_OMP_THREADS_BIND": "|".join(map(str, cpus_here()[:2]))}
        given = [share.__class__({**share.environment, **both}, 1) for share in given]
    workers = Processes(
        count,
        lambda n: Opening(
            spec.data,
            str(spec.folder),
            None,
            Permissions(),
            given[n].threads,
            environment=given[n].environment,
            directory=os.getcwd(),
        ),
    )
    try:
        found = [answer.result(250) for answer in [workers.call("run", job) for job in jobs]]
    finally:
        workers.close()
    for ours, theirs in zip(found, wanted, strict=True):
        assert ours.failure is None, ours.failure.text
        assert (ours.weights_digest, ours.scores) == (theirs.weights_digest, theirs.scores)
