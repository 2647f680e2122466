import json
import math
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from merge_core.errors import CheckpointError, NonFiniteError, ParameterError
from merge_core.inspect.report import inspect
from merge_core.parents.weight_files import SINGLE
from tests.merge_core.conftest import change
from tests.merge_core.methods.merging import largest, middle, probabilities
from tests.merge_core.recipes import LINEAR, SLERP

ADDED = """
merge_method: task_arithmetic
base_model: base
models:
  - {model: one, parameters: {weight: 0.3}}
  - {model: two, parameters: {weight: 0.6}}
  - {model: three, parameters: {weight: 0.6}}
"""
Q, NORM = "model.layers.0.self_attn.q_proj.weight", "model.norm.weight"


def trimmed(method, own, more=""):
    """A recipe for models one and two with the same own parameters."""
    models = "".join(f"  - {{model: {name}, parameters: {own}}}\n" for name in ("one", "two"))
    return f"merge_method: {method}\nbase_model: base\nmodels:\n{models}{more}"


def weights(root, name):
    return load_file(root / name / SINGLE)


def deltas(root, name, base="base"):
    """Task vector of every tensor, float64 numbers of float32 differences."""
    start = weights(root, base)
    return {
        key: (x.float() - start[key].float()).double().numpy().ravel()
        for key, x in weights(root, name).items()
        if x.is_floating_point() and key in start
    }


def rows_of(found):
    return {(row.stack, row.layer, row.name): row for row in found.rows}


def row_of(found, name=Q):
    """The row that a tensor of layer 0, or outside the layers, is in."""
    name = name.removesuffix(".weight")
    inside = name.startswith("model.layers.0.")
    stack = "model.layers" if inside else None
    return rows_of(found)[stack, 0 if inside else None, name.removeprefix("model.layers.0.")]


def joined(vectors, names):
    return np.concatenate([vectors[name] for name in names])


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [("llama", "float32"), ("gpt-neox", "float16"), ("mixtral", "bfloat16"), ("t5", "float32")],
)
def test_every_number_of_every_row_is_that_of_numpy(planned, family, kind, dtype):
    found = inspect(planned(ADDED, kind, dtype).plan)
    root, seen = family(kind, dtype), set()
    of = {name: deltas(root, name) for name in ("one", "two", "three")}
    base = {k: x.double().numpy().ravel() for k, x in weights(root, "base").items()}
    for row in found.rows:
        start = row.name if row.layer is None else f"{row.stack}.{row.layer}.{row.name}"
        names = sorted(k for k in of["one"] if k.rpartition(".")[0] == start)
        assert names
        seen.update(names)
        d = {name: joined(vectors, names) for name, vectors in of.items()}
        norm = np.linalg.norm(joined(base, names))
        assert row.parameters == d["one"].size
        for one in row.models:
            assert one.norm == pytest.approx(np.linalg.norm(d[one.model]), rel=1e-7)
            assert one.relative == pytest.approx(one.norm / norm, rel=1e-7)
            assert one.kept is None
        for pair in row.pairs:
            a, b = (d[name] for name in pair.models)
            cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
            both = (a != 0) & (b != 0)
            assert pair.cosine == pytest.approx(cosine, abs=1e-12)
            opposed = (np.sign(a) != np.sign(b))[both]
            assert pair.sign_disagreement == (opposed.mean() if both.any() else None)
    plan = planned(ADDED, kind, dtype).plan
    assert seen == {step.tensor for step in plan.steps}


def test_total_is_over_all_tensors(planned, family):
    found = inspect(planned(ADDED).plan)
    names = sorted(deltas(family(), "one"))
    d = {name: joined(deltas(family(), name), names) for name in found.models}
    assert [one.model for one in found.total.models] == ["one", "two", "three"]
    for one in found.total.models:
        assert one.norm == pytest.approx(np.linalg.norm(d[one.model]), rel=1e-7)
    assert [pair.models for pair in found.total.pairs] == list(combinations(d, 2))
    for pair in found.total.pairs:
        a, b = (d[name] for name in pair.models)
        cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
        assert pair.cosine == pytest.approx(cosine, abs=1e-12)


def test_rows_are_in_the_order_of_the_model(planned):
    found = inspect(planned(ADDED, "llama").plan)
    names = [(row.layer, row.name) for row in found.rows]
    assert names[0] == (None, "model.embed_tokens")
    assert names[1:5] == [(0, f"self_attn.{x}_proj") for x in "qkvo"]
    assert names[-2:] == [(None, "model.norm"), (None, "lm_head")]
    assert [layer for layer, _ in names[1:-2]] == [i for i in range(4) for _ in range(9)]


def test_layers_of_several_stacks_are_rows_of_their_own(planned):
    found = inspect(planned(ADDED, "t5").plan)
    assert {(row.stack, row.layer) for row in found.rows if row.layer is not None} == {
        *(("encoder.block", i) for i in range(3)),
        *(("decoder.block", i) for i in range(4)),
    }
    assert "encoder.block 2" in {found.layer_name(row) for row in found.rows}


@pytest.fixture
def moved(own_family, planned):
    """Measure task vectors of models one and two in one tensor, given by hand."""

    def get(one, two, text=ADDED):
        root = own_family()
        base = weights(root, "base")[NORM]
        zero = torch.zeros_like(base)
        whole = torch.arange(len(base)).remainder(7).float()  # so that sums are exact
        for name, delta in (("base", zero), ("one", one), ("two", two), ("three", zero)):
            change(root / name, model__norm__weight=whole + delta)
        return row_of(inspect(planned(text, root=root).plan), NORM)

    return get


def along(*places):
    x = torch.zeros(16)
    for place, value in enumerate(places):
        x[place] = value
    return x


@pytest.mark.parametrize(
    ("one", "two", "cosine", "signs"),
    [
        (along(3, 4), along(3, 4), 1.0, 0.0),
        (along(3, 4), along(-3, -4), -1.0, 1.0),
        (along(3, 0), along(0, 4), 0.0, None),
        (along(1, 1), along(1, -1), 0.0, 0.5),
        (along(1, 2, 2), along(2, 1, -2, 5, -5), 0.0, 1 / 3),
        (along(3, 4), along(), None, None),
    ],
    ids=["equal", "opposite", "apart", "orthogonal", "orthogonal in part", "zero"],
)
def test_pairs_made_by_hand_have_the_cosine_and_signs_one_can_count(moved, one, two, cosine, signs):
    pair = moved(one, two).pairs[0]
    assert pair.models == ("one", "two")
    assert (pair.cosine, pair.sign_disagreement) == (cosine, signs)


def test_signs_of_entries_whose_product_underflows_are_seen(own_family, planned):
    root = own_family()
    tiny = torch.full((16,), 1e-30)
    for name, x in (("base", 0 * tiny), ("one", tiny), ("two", -tiny)):
        change(root / name, model__norm__weight=x)
    pair = row_of(inspect(planned(ADDED, root=root).plan), NORM).pairs[0]
    assert (pair.cosine, pair.sign_disagreement) == (pytest.approx(-1.0, rel=1e-7), 1.0)


def test_norm_over_a_base_of_zeros_is_not_defined(own_family, planned):
    root = own_family()
    change(root / "base", model__norm__weight=torch.zeros(16))
    one = row_of(inspect(planned(ADDED, root=root).plan), NORM).models[0]
    assert one.norm > 0
    assert one.relative is None


def assert_kept(found, delta, stays):
    """``stays``: share or probability of every entry."""
    d = np.abs(delta)
    assert found.entries == pytest.approx(stays.mean(), rel=1e-7)
    assert found.l1 == pytest.approx((stays * d).sum() / d.sum(), rel=1e-7)
    assert found.squares == pytest.approx((stays * d**2).sum() / (d**2).sum(), rel=1e-7)


@pytest.mark.parametrize(
    ("method", "own", "stays", "kind"),
    [
        ("ties", "density: 0.3", lambda d: largest(d, 0.3), "exact"),
        ("ties", "density: 1", lambda d: d == d, "exact"),
        ("breadcrumbs", "density: 0.6, gamma: 0.1", lambda d: middle(d, 0.6, 0.1), "exact"),
        ("della", "density: 0.6, epsilon: 0.2", lambda d: probabilities(d, 0.6, 0.2), "expected"),
        ("dare_linear", "density: 0.4", lambda d: 0 * d.double() + 0.4, "expected"),
    ],
    ids=["ties", "all", "breadcrumbs", "della", "dare"],
)
def test_kept_share_is_that_of_the_methods_own_mask(planned, family, method, own, stays, kind):
    found = inspect(planned(trimmed(method, f"{{{own}, weight: 1}}")).plan)
    delta = weights(family(), "one")[Q] - weights(family(), "base")[Q]
    mask = stays(delta).double().numpy().ravel()
    assert_kept(row_of(found).models[0].kept, delta.double().numpy().ravel(), mask)
    assert found.kept_is == kind


def test_density_of_a_gradient_and_of_a_filter_counts_for_its_tensors(planned, family):
    text = trimmed(
        "ties", "{density: [{filter: mlp, value: [0.25, 0.75]}, {value: 0.5}], weight: 1}"
    )
    rows = rows_of(inspect(planned(text).plan))
    kept = {key[1:]: row.models[0].kept.entries for key, row in rows.items()}
    assert kept[0, "mlp.up_proj"] == 0.25
    assert kept[3, "mlp.up_proj"] == 0.75
    assert kept[1, "self_attn.q_proj"] == 0.5


def test_trim_of_the_whole_task_vector_keeps_the_density_over_all_tensors(planned, family):
    text = trimmed("ties", "{density: 0.2, weight: 1}", "parameters: {trim: global}\n")
    found = inspect(planned(text).plan)
    d = deltas(family(), "one")
    names = sorted(d)
    count = joined(d, names).size
    first = found.total.models[0].kept
    assert first.entries == math.floor(0.2 * count) / count
    threshold = np.sort(np.abs(joined(d, names)))[-math.floor(0.2 * count)]
    assert_kept(row_of(found).models[0].kept, d[Q], np.abs(d[Q]) >= threshold)


def test_method_without_density_says_nothing_of_what_is_kept(planned):
    found = inspect(planned(ADDED).plan)
    assert found.kept_is is None
    assert all(one.kept is None for row in found.rows for one in row.models)


def test_without_a_base_differences_are_from_the_first_model(planned, family):
    found = inspect(planned(LINEAR.replace("model: base", "model: three")).plan)
    assert found.measured_from == ("three",)
    assert found.models == ("one", "two")
    norm = np.linalg.norm(deltas(family(), "one", base="three")[Q])
    assert row_of(found).models[0].norm == pytest.approx(norm, rel=1e-7)


def test_base_that_the_method_has_no_use_for_is_measured_from_all_the_same(planned):
    found = inspect(planned(f"base_model: two{LINEAR}").plan)
    assert found.measured_from == ("two",)
    assert found.models == ("base", "one")


def test_one_model_beside_the_base_has_no_pairs(planned):
    found = inspect(planned(SLERP).plan)
    assert (found.measured_from, found.models, found.total.pairs) == (("base",), ("one",), ())


SLICED = """
merge_method: task_arithmetic
base_model: base
slices:
  - sources:
      - {model: base, layer_range: [0, 3]}
      - {model: one, layer_range: [0, 3], parameters: {weight: 1}}
      - {model: two, layer_range: [0, 3], parameters: {weight: 1}}
  - sources:
      - {model: base, layer_range: [1, 4]}
      - {model: two, layer_range: [1, 4], parameters: {weight: 1}}
      - {model: three, layer_range: [1, 4], parameters: {weight: 1}}
"""


def test_rows_of_slices_are_the_layers_of_the_result(planned, family):
    found = inspect(planned(SLICED).plan)
    rows = rows_of(found)
    assert {row.layer for row in found.rows} == {None, *range(6)}
    assert [x.model for x in rows["model.layers", 2, "mlp.up_proj"].models] == ["one", "two"]
    last = rows["model.layers", 5, "mlp.up_proj"]
    assert [x.model for x in last.models] == ["two", "three"]
    norm = np.linalg.norm(deltas(family(), "two")["model.layers.3.mlp.up_proj.weight"])
    assert last.models[0].norm == pytest.approx(norm, rel=1e-7)
    assert found.models == ("one", "two", "three")


def test_total_of_a_model_that_is_in_some_slices_is_over_these(planned, family):
    found = inspect(planned(SLICED).plan)
    one = next(x for x in found.total.models if x.model == "one")
    parts = [x for row in found.rows for x in row.models if x.model == "one"]
    assert one.norm == pytest.approx(math.sqrt(sum(x.norm**2 for x in parts)), rel=1e-7)
    bases = sum((x.norm / x.relative) ** 2 for x in parts)
    assert one.relative == pytest.approx(one.norm / math.sqrt(bases), rel=1e-7)


def test_stacked_layers_of_single_models_have_no_task_vectors(planned):
    found = inspect(
        planned(
            "merge_method: passthrough\nslices:\n"
            "  - sources: [{model: one, layer_range: [0, 3]}]\n"
            "  - sources: [{model: two, layer_range: [2, 4]}]\n"
        ).plan
    )
    assert (found.models, found.total.pairs) == ((), ())
    assert found.measured_from == ("one", "two")
    assert {row.layer for row in found.rows} == {None, *range(5)}


def write_adapter(folder):
    """A LoRA of rank 2 on the first query projection; return its change."""
    stream = torch.Generator().manual_seed(3)
    a, b = torch.randn(2, 16, generator=stream), torch.randn(16, 2, generator=stream)
    folder.mkdir()
    start = "base_model.model.model.layers.0.self_attn.q_proj"
    save_file(
        {f"{start}.lora_A.weight": a, f"{start}.lora_B.weight": b},
        folder / "adapter_model.safetensors",
    )
    settings = {"peft_type": "LORA", "r": 2, "lora_alpha": 4}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    return (2 * (b.double() @ a.double())).numpy()


def test_task_vector_of_a_lora_is_its_low_rank_product(own_family, planned):
    root = own_family()
    product = write_adapter(root / "lora")
    text = ADDED.replace("model: three", "model: base+lora")
    found = inspect(planned(text, root=root).plan)
    lora = row_of(found).models[2]
    assert lora.model == "base+lora"
    assert lora.norm == pytest.approx(np.linalg.norm(product), rel=1e-5)  # float32 sums
    assert row_of(found, NORM).models[2].norm == 0
    assert row_of(found, NORM).pairs[1].cosine is None
    files = [root / name / SINGLE for name in ("base", "one", "two")]
    files.append(root / "lora" / "adapter_model.safetensors")
    assert found.memory.parents == sum(file.stat().st_size for file in files)  # base's counts once


DOCUMENTS = """
name: half
merge_method: linear
dtype: float32
models: [{model: one, parameters: {weight: 1}}, {model: two, parameters: {weight: 1}}]
---
merge_method: task_arithmetic
base_model: base
dtype: float32
models: [{model: half, parameters: {weight: 1}}, {model: three, parameters: {weight: 1}}]
"""


def test_other_document_is_measured_as_the_model_it_stands_for(planned, family):
    found = inspect(planned(DOCUMENTS).plan)
    mean = (deltas(family(), "one")[Q] + deltas(family(), "two")[Q]) / 2
    half = row_of(found).models[0]
    assert half.model == "half"
    assert half.norm == pytest.approx(np.linalg.norm(mean), rel=1e-5)  # float32 sums
    assert set(found.parents) == {"base", "one", "two", "three"}
    alone = inspect(planned(ADDED).plan).memory.temporaries
    assert found.memory.temporaries > alone


def test_union_of_equal_vocabularies_changes_no_number(planned):
    own, union = (inspect(planned(ADDED + more).plan) for more in ("", "tokenizer_source: union\n"))
    assert union.rows == own.rows


def test_parameters_and_bytes_are_those_of_the_files(planned, family, tmp_path):
    made = planned(ADDED + "dtype: bfloat16\n", "llama")
    found = inspect(made.plan)
    made.write(tmp_path / "out")
    written = load_file(tmp_path / "out" / SINGLE)
    assert found.parameters == sum(x.numel() for x in written.values())
    assert found.memory.result == 2 * found.parameters
    assert found.dtype == "bfloat16"
    assert found.parents == dict.fromkeys(("one", "two", "three", "base"), found.parameters)
    sizes = [(family("llama") / name / SINGLE).stat().st_size for name in found.parents]
    assert found.memory.parents == sum(sizes)


def test_temporaries_are_blocks_and_what_a_method_makes_of_the_largest_tensor(planned, family):
    size = max(x.numel() for x in weights(family(), "base").values())
    by_entry = inspect(planned(ADDED).plan).memory.temporaries
    assert by_entry == 32 * 2**20 + 4 * size
    ranked = planned(trimmed("della", "{density: 0.5, weight: 1}")).plan
    assert inspect(ranked).memory.temporaries == by_entry + 2 * 2 * size
    whole = planned(trimmed("iso_c", "{weight: 1}")).plan
    assert inspect(whole).memory.temporaries == 4 * size + (6 + 2 * 2) * 4 * size


def test_plain_form_is_json_and_has_every_row(planned):
    found = inspect(planned(trimmed("ties", "{density: 0.5, weight: 1}")).plan)
    data = json.loads(json.dumps(found.plain(), allow_nan=False))
    assert len(data["rows"]) == len(found.rows)
    assert data["rows"][1]["models"][0]["kept"]["entries"] == 0.5
    assert data["rows"][1]["pairs"][0]["models"] == ["one", "two"]


def test_nothing_is_merged_and_no_parent_is_changed(planned):
    made = planned(ADDED).plan
    before = {step.tensor: made.parents["one"].tensor(step.tensor).clone() for step in made.steps}
    method = replace(made.method, merge=lambda _: pytest.fail("a tensor was merged"))
    inspect(replace(made, method=method))
    assert all(made.parents["one"].tensor(name).equal(x) for name, x in before.items())


def test_entries_that_are_not_finite_are_an_error_with_tensor_and_model(own_family, planned):
    root = own_family()
    change(root / "two", model__norm__weight=torch.full((16,), math.inf))
    with pytest.raises(NonFiniteError, match=r"model.norm.weight: .*two has NaN or infinite ent"):
        inspect(planned(ADDED, root=root).plan)
    change(root / "base", model__norm__weight=torch.full((16,), math.nan))
    with pytest.raises(NonFiniteError, match=r"model.norm.weight: .*base has NaN or infinite ent"):
        inspect(planned(ADDED, root=root).plan)


def test_values_that_the_merge_would_refuse_are_refused(planned):
    text = trimmed("della", "{density: 0.2, epsilon: 0.3, weight: 1}")
    with pytest.raises(ParameterError, match=r"must be in \(0, 1\), got density 0.2 and epsilon"):
        inspect(planned(text).plan)


def test_whole_numbers_that_differ_are_refused_as_in_a_merge(own_family, planned):
    root = own_family()
    for name in ("base", "one", "two", "three"):
        change(root / name, model__norm__weight=torch.full((16,), 3 if name != "two" else 4))
    with pytest.raises(
        CheckpointError, match=r"model.norm.weight: the parents' whole-number tensors"
    ):
        inspect(planned(ADDED, root=root).plan)


def test_whole_numbers_are_no_parameters_and_no_row(own_family, planned):
    root = own_family()
    for name in ("base", "one", "two", "three"):
        change(root / name, model__norm__weight=torch.full((16,), 3))
    found = inspect(planned(ADDED, root=root).plan)
    assert found.parameters == sum(row.parameters for row in found.rows)
    assert "model.norm.weight" not in {row.name for row in found.rows}
    assert found.memory.result == 4 * found.parameters + 8 * 16


def test_mixture_is_refused_since_nothing_meets_in_its_tensors(planned):
    experts = "[{source_model: one}, {source_model: two}]"
    made = planned(f"base_model: base\ngate_mode: random\nexperts: {experts}\n", "llama")
    with pytest.raises(ParameterError, match="inspect the recipe without moe"):
        inspect(made.plan)
