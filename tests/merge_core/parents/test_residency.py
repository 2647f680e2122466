"""Where parents are kept, and that merges have the same bits wherever that is."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from merge_core.contract import Block
from merge_core.errors import ParameterError
from merge_core.kernels import eager
from merge_core.merge.execute import Execution
from merge_core.merge.nested import plan
from merge_core.merge.statistics_cache import Known
from merge_core.methods.registry import METHODS, method
from merge_core.numerics import weights_hash
from merge_core.output.live_model import Candidate
from merge_core.parents import residency
from merge_core.parents.open import open_parents
from merge_core.parents.residency import Memory, Store, decide
from merge_core.recipe.schema import Recipe, Source
from merge_core.testing import assert_same_bits, converted, usual
from tests.merge_core.kernels.test_compiled import inputs_for
from tests.merge_core.parents.test_lora_merge import adapter
from tests.merge_core.pretend import Away, accelerator

GIB = 2**30
HOST = Memory(120 * GIB, 128 * GIB)


def decided(asked="auto", free=61, total=78, host=HOST, device="cuda", model=14, parents=3):
    on_device = Memory(free * GIB, total * GIB) if device.startswith("cuda") else None
    sizes = [14 * GIB] * parents
    return decide(asked, device, model * GIB, parents, sizes, (on_device, host))


@pytest.mark.parametrize(
    ("given", "where", "reason"),
    [
        (
            {"free": 70},
            "device",
            "3 parents, 42.0 GiB, fit beside the model, 14.0 GiB, on cuda: 70.0 of 78.0 GiB free",
        ),
        ({"free": 66}, "device", "66.0 of 78.0 GiB free"),  # 56 and an eighth of 78
        ({"free": 65}, "pinned", "do not fit beside the model, 14.0 GiB, on cuda: 65.0 of 78.0"),
        ({"free": 65}, "pinned", "fit into pinned memory, where they take 48.0 GiB: 120.0 of 128"),
        ({"free": 65, "host": Memory(63 * GIB, 128 * GIB)}, "mapped", "63.0 of 128.0 GiB free"),
        ({"free": 65, "host": Memory(64 * GIB, 128 * GIB)}, "pinned", "64.0 of 128.0 GiB free"),
        ({"asked": "device", "free": 56}, "device", "56.0 of 78.0 GiB free"),
        ({"asked": "pinned", "free": 78}, "pinned", "3 parents, 42.0 GiB, fit into pinned memory"),
        ({"asked": "mapped", "free": 78}, "mapped", "as the study file asks"),
        ({"device": "cpu"}, "mapped", "on cpu files are memory already"),
        ({"device": "mps"}, "mapped", "on mps none is placed, only on cuda"),
        ({"device": "cpu", "asked": "mapped"}, "mapped", "as the study file asks"),
    ],
)
def test_parents_are_placed_where_they_fit(given, where, reason):
    found = decided(**given)
    assert found.where == where
    assert reason in found.reason


@pytest.mark.parametrize(
    ("given", "error"),
    [
        (
            {"asked": "device", "free": 55},
            r"^engine.parents: 3 parents, 42.0 GiB, do not fit beside .*; set it to auto or map",
        ),
        (
            {"asked": "pinned", "host": Memory(47 * GIB, 64 * GIB)},
            r"^engine.parents: .* do not fit into .* 48.0 GiB: 47.0 of 64.0 GiB free; set it to",
        ),
        ({"asked": "device", "device": "cpu"}, r"expected auto or mapped .on cpu .*, got 'device'"),
        ({"asked": "pinned", "device": "mps"}, r"mapped .on mps .* only on cuda.*, got 'pinned'"),
    ],
)
def test_what_cannot_be_is_refused(given, error):
    with pytest.raises(ParameterError, match=error):
        decided(**given)


def test_room_for_what_is_computed_once_is_within_the_reserve():
    assert decided(free=23, total=24, model=1, parents=1).room == 24 * GIB // 16
    assert decided(free=270, total=280).room == 280 * GIB // 16


@pytest.mark.parametrize(
    "given", [{"asked": "mapped"}, {"device": "cpu"}, {"free": 20, "model": 15}]
)
def test_room_on_the_host_is_a_quarter_of_what_the_model_leaves_free(given):
    model, host = given.get("model", 14), Memory(40 * GIB, 64 * GIB)
    found = decided(**given, host=host)
    assert found.where == "mapped"
    assert found.room == (40 - model) * GIB // 4
    assert decided(**given, host=Memory(9 * GIB, 64 * GIB)).room == 0


def test_room_is_small_where_the_system_does_not_tell_what_is_free():
    assert residency.host_room(Memory(0, 0), 10**12) == residency.UNKNOWN


def test_host_memory_is_within_the_limit_of_a_container(tmp_path, monkeypatch):
    for name in ("MEMORY", "GROUP"):
        monkeypatch.setattr(residency, name, tmp_path / name)
    assert residency.memories("cpu") == (None, Memory(0, 0))
    (tmp_path / "MEMORY").write_text("MemTotal: 4000 kB\nMemFree: 9 kB\nMemAvailable: 3000 kB\n")
    group = tmp_path / "GROUP"
    (group / "memory").mkdir(parents=True)
    assert residency.memories("cpu") == (None, Memory(3000 * 1024, 4000 * 1024))
    (group / "memory.max").write_text("max\n")
    assert residency.memories("cpu") == (None, Memory(3000 * 1024, 4000 * 1024))
    (group / "memory.max").write_text("2048000\n")
    assert residency.memories("cpu") == (None, Memory(2048000, 2048000))
    (group / "memory.current").write_text("1500000\n")
    (group / "memory.stat").write_text("anon 900000\nfile 600000\nfile_mapped 1\n")
    assert residency.host_memory() == Memory(2048000 - 900000, 2048000)
    assert residency.host_room() == (2048000 - 900000) // 4
    (group / "memory" / "memory.limit_in_bytes").write_text("1000000\n")  # of version 1
    (group / "memory" / "memory.usage_in_bytes").write_text("700000\n")
    (group / "memory" / "memory.stat").write_text("cache 0\ntotal_cache 100000\n")
    assert residency.host_memory() == Memory(400000, 1000000)


@pytest.fixture
def root(own_family):
    folder = own_family("llama", "bfloat16")
    adapter(folder / "small", 2)
    adapter(folder / "large", 5)
    return folder


def recipe_for(name, models, changes):
    """A recipe with every parameter where its declaration would start it, but for changes."""
    found = method(name)

    def values(scope):
        params = [p for p in found.params if p.scope == scope]
        return tuple(sorted((p.name, changes.get(p.name, usual(p))) for p in params))

    listed = models if found.base == "none" else models[1:]
    most = (found.models[1] or 4) - (found.base != "none")
    return Recipe(
        merge_method=name,
        models=tuple(Source(model, values("model")) for model in listed[:most]),
        base_model=None if found.base == "none" else models[0],
        parameters=values("shared"),
        dtype="bfloat16",
    )


PLAIN, ADAPTED = ["base", "one", "two", "three"], ["base", "base+small", "base+large", "one"]


FORMS = {
    "ties": {"trim": "global", "rescale": "l1"},
    "model_stock": {"filter_wise": True},
    "nuslerp": {"nuslerp_flatten": False, "nuslerp_row_wise": True},
    "sce": {"select_topk": 0.3},
    "breadcrumbs": {"gamma": 0.1},
}


def opened(root, name, models, where=None, device="cpu", **changes):
    """A plan on parents that are kept somewhere."""
    recipe, store = recipe_for(name, models, changes), Store()
    parents = open_parents(recipe.references(), [root], store.open)
    if where:
        store.place(where, device)
    return plan(recipe, parents)


@pytest.mark.slow
@pytest.mark.parametrize("models", [PLAIN, ADAPTED], ids=["plain", "adapted"])
@pytest.mark.parametrize("name", METHODS.names())
def test_candidate_is_the_same_wherever_parents_are_kept(root, name, models):
    mapped = Candidate().build(opened(root, name, models))
    for where in ("device", "pinned"):
        candidate = Candidate()
        assert candidate.build(opened(root, name, models, where)) == mapped
        candidate.touch()
        assert candidate.build(opened(root, name, models, where)) == mapped


def test_parents_that_share_a_base_share_its_tensors(root):
    store = Store()
    parents = open_parents(["base", "base+small", "base+large"], [root], store.open)
    entries = sum(x.numel() for x in map(parents["base"].tensor, parents["base"].tensors))
    assert sum(store.sizes()) == 2 * entries + 4 * 4 * 32 * (2 + 5)  # B and A of four layers
    store.place("device", "cpu")
    norms = [parent.tensor("model.norm.weight") for parent in parents.values()]
    assert norms[0] is norms[1] is norms[2]


class File:
    """A weight file that counts how often it is read."""

    path = infos = None

    def __init__(self):
        self.read, self.left_out = [], {}
        self.stored = torch.arange(6.0)

    def tensor(self, name):
        self.read.append(name)
        return self.stored


@pytest.mark.parametrize("where", ["device", "pinned"])
def test_a_file_is_read_once(where):
    file = File()
    kept = residency.Kept(file)
    kept.place(where, torch.device("cpu"), None)
    first, second = kept.tensor("x"), kept.tensor("x")
    assert file.read == ["x"]
    assert first.equal(second)
    assert (first is second) == (where == "device")
    file.stored.zero_()
    assert kept.tensor("x").equal(torch.arange(6.0))


def test_pinned_tensors_are_sent_on_their_own_stream_and_waited_for(monkeypatch):
    said = []

    class Stream:
        def __init__(self, name):
            self.name = name

        def __enter__(self):
            said.append(f"on {self.name}")

        def __exit__(self, *_):
            said.append(f"off {self.name}")

        def record_event(self):
            said.append(f"event of {self.name}")
            return "event"

        def wait_event(self, event):
            said.append(f"{self.name} waits for the {event}")

    monkeypatch.setattr(torch.cuda, "stream", lambda stream: stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream("main"))
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda x: x.clone())
    monkeypatch.setattr(
        torch.Tensor, "record_stream", lambda x, s: said.append(f"used by {s.name}")
    )
    kept = residency.Kept(File())
    kept.place("pinned", torch.device("cpu"), Stream("side"))
    kept.expect("x")
    kept.expect("x")
    assert said == ["on side", "event of side", "off side"]
    assert kept.tensor("x").equal(torch.arange(6.0))
    assert said[3:] == ["main waits for the event", "used by main"]


def test_tensors_of_the_next_step_are_expected_before_a_step_is_merged(root, monkeypatch):
    said = []
    monkeypatch.setattr(residency.Kept, "expect", lambda kept, name: said.append(name))
    carry_out = Execution.carry_out

    def merge(execution, step, out=None):
        said.append(f"merge {step.tensor}")
        return carry_out(execution, step, out)

    monkeypatch.setattr(Execution, "carry_out", merge)
    made = opened(root, "linear", ADAPTED)
    Candidate().build(made)
    names = [step.tensor for step in made.steps]
    assert said[:9] == [names[0]] * 4 + [names[1]] * 4 + [f"merge {names[0]}"]
    assert said[-5:] == [names[-1]] * 4 + [f"merge {names[-1]}"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "models", "where", "form"),
    [
        *((name, PLAIN, "device", {}) for name in METHODS.names()),
        *((name, PLAIN, "device", form) for name, form in FORMS.items()),
        ("slerp", ADAPTED, "pinned", {}),
        ("della", ADAPTED, "device", {}),
    ],
)
def test_merges_run_where_parents_are(root, name, models, where, form, monkeypatch):
    """On a pretended accelerator nothing is mixed with the CPU's tensors; the bits are the same."""
    made = opened(root, name, models, **form)
    here = Execution(made, Known())
    expected = {step.tensor: here.carry_out(step) for step in made.steps}
    monkeypatch.setattr(eager, "FAR_BLOCK", 900)
    monkeypatch.setattr(weights_hash, "_FAR_BLOCK", 100)
    with accelerator() as device:
        far = opened(root, name, models, where, device, **form)
        there = Execution(far, Known())
        for step in far.steps:
            found = there.carry_out(step)
            assert isinstance(found, Away)
            assert_same_bits(found.inside, expected[step.tensor], step.tensor)
        assert there.digests == here.digests


@pytest.mark.parametrize("name", METHODS.names())
def test_entry_functions_mix_no_devices_in_the_eyes_of_torch(name, monkeypatch):
    """FakeTensorMode has torch's own rules for devices, and no values."""
    found = method(name)
    inputs = inputs_for(found, (16, 33), torch.bfloat16, **FORMS.get(name, {}))
    known = found.prepare(inputs)
    with FakeTensorMode():

        def far(x):
            return torch.empty(x.shape, device="cuda")

        def all_far(named):
            return {key: [far(x) for x in many] for key, many in named.items()}

        there = converted(inputs, far)
        block = Block(
            there.models,
            there.base,
            eager._numbers(known.numbers, there.models[0])
            | all_far(known.rows)
            | all_far(known.columns),
            known.flags,
            known.words,
            {key: [far(x).int() for x in many] for key, many in known.arrays.items()},
            torch.zeros(16, 33, dtype=torch.int32, device="cuda") if known.words else None,
        )
        assert found.entry(block).device.type == "cuda"


def test_the_pretended_accelerator_refuses_what_a_real_one_does():
    with accelerator() as device:
        far = torch.arange(4.0).to(device)
        with pytest.raises(RuntimeError, match="tensors of two devices"):
            far + torch.arange(4.0)
        with pytest.raises(RuntimeError, match="numpy"):
            far.numpy()
        assert float((far * torch.tensor(2.0)).sum()) == 12
        assert torch.zeros(3, device=device).add_(far[1:]).tolist() == [1, 2, 3]
        assert far.cpu().tolist() == torch.tensor([0.0, 1, 2, 3], device=device).tolist()
