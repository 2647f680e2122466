"""Inputs of layers multiplied by a number: live, as weights where exact, refused elsewhere."""

import pytest
import torch
from torch.nn.functional import embedding, linear, silu

from merge_core.errors import NonFiniteError, ParameterError
from merge_core.merge.nested import plan
from merge_core.output.live_model import Candidate
from merge_core.output.tensor_stream import Stream
from tests.merge_core.conftest import read_recipe
from tests.merge_core.output.test_stacked_candidates import (
    IDS,
    assert_same,
    loaded,
    parts,
    written,
)

PATH = [("base", 0, 1.0), ("one", 1, 0.5), ("base", 2, 1.0), ("one", 1, 1.75), ("base", 3, -0.25)]
FIRST = [("base", 0, 1.3), ("one", 1, 1.0), ("base", 3, 1.0)]


def scaled(path, **keys):
    """A passthrough recipe of single layers, each ``(model, number, input scale)``."""
    slices = "".join(
        f"\n  - sources: [{{model: {model}, layer_range: [{i}, {i + 1}]}}]"
        f"\n    input_scale: {scale}"
        for model, i, scale in path
    )
    more = "".join(f"\n{key}: {value}" for key, value in keys.items())
    return f"merge_method: passthrough\nbase_model: base{more}\nslices:{slices}\n"


def norm(x, weight, eps):
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * weight


def turned(x, places, theta):
    """Rotary positions, as arXiv:2104.09864 in halves."""
    half = x.shape[-1] // 2
    angles = places[:, None] / theta ** (torch.arange(half, dtype=x.dtype) / half)
    a, b = x[..., :half], x[..., half:]
    cos, sin = angles.cos(), angles.sin()
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


def plain_llama(parents, path, ids):
    """The logits of a path, in plain torch and float64."""
    config = parents["base"].config

    def weight(model, name):
        return parents[model].tensor(f"{name}.weight").double()

    heads, groups = config["num_attention_heads"], config["num_key_value_heads"]
    eps, theta = config["rms_norm_eps"], config["rope_parameters"]["rope_theta"]
    x, n = embedding(ids[0], weight("base", "model.embed_tokens")), ids.shape[1]
    places, unseen = torch.arange(n).double(), torch.ones(n, n).triu(1).bool()
    for model, i, scale in path:

        def own(name, model=model, i=i):
            return weight(model, f"model.layers.{i}.{name}")

        x = x * scale
        h = norm(x, own("input_layernorm"), eps)
        q, k, v = (linear(h, own(f"self_attn.{c}_proj")) for c in "qkv")
        q, k, v = (t.view(n, -1, x.shape[1] // heads).transpose(0, 1) for t in (q, k, v))
        q, k = turned(q, places, theta), turned(k, places, theta)
        k, v = (t.repeat_interleave(heads // groups, 0) for t in (k, v))
        logits = (q @ k.mT) / q.shape[-1] ** 0.5
        seen = logits.masked_fill(unseen, -torch.inf).softmax(-1) @ v
        x = x + linear(seen.transpose(0, 1).reshape(n, -1), own("self_attn.o_proj"))
        h = norm(x, own("post_attention_layernorm"), eps)
        gate, up = linear(h, own("mlp.gate_proj")), linear(h, own("mlp.up_proj"))
        x = x + linear(silu(gate) * up, own("mlp.down_proj"))
    return linear(norm(x, weight("base", "model.norm"), eps), weight("base", "lm_head"))


@pytest.mark.parametrize("path", [PATH, FIRST, [(m, i, 1.0) for m, i, _ in PATH]])
def test_scaled_path_is_what_plain_torch_computes(planned, path):
    made = planned(scaled(path), "llama")
    _, model = made.build()
    with torch.no_grad():
        found = model(IDS).logits[0]
    wanted = plain_llama(made.parents, path, IDS)
    torch.testing.assert_close(found.double(), wanted, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("kind", ["llama", "gpt-neox", "qwen3", "mixtral"])
def test_each_hop_has_a_cache_of_its_own(planned, kind):
    most = 2 if kind == "gpt-neox" else 3
    _, model = planned(scaled([(m, min(i, most), s) for m, i, s in PATH]), kind).build()
    text = written(model)
    assert text.equal(written(model, use_cache=False))
    state = model(IDS, use_cache=True).past_key_values
    keys = [layer.keys for layer in state.layers]
    assert len(keys) == len(PATH)
    assert not keys[1].equal(keys[3]), "the same layer's, of two places"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_scale_of_the_first_layer_is_exact_in_an_untied_embedding(planned, tmp_path, dtype):
    made = planned(scaled(FIRST, dtype=dtype), "llama", "bfloat16")
    digest, model = made.build()
    assert made.write(tmp_path / "out") == digest
    there = loaded(tmp_path / "out")
    assert not there.lm_head.weight.equal(there.model.embed_tokens.weight)
    rows = made.parents["base"].tensor("model.embed_tokens.weight").to(getattr(torch, dtype))
    assert there.model.embed_tokens.weight.equal(rows * 1.3)
    assert_same(model, there)


def test_stream_gives_the_tensors_of_the_folder(planned, tmp_path):
    made, taken = planned(scaled(FIRST), "llama"), {}
    digest = Stream().send(made.plan, lambda tensors: taken.update(tensors))
    assert digest == made.build()[0] == made.write(tmp_path / "out")
    there = loaded(tmp_path / "out").state_dict()
    assert all(x.equal(there[name]) for name, x in taken.items())


@pytest.mark.parametrize(
    ("kind", "path", "said"),
    [
        ("llama", PATH, r"model\.layers\.1 \(x 0\.5\), model\.layers\.3 .*layers\.4 \(x -0\.25\) "),
        ("llama-tied", FIRST, r"model\.layers\.0 \(x 1\.3\) are multiplied by"),
        ("gpt2", FIRST, r"h\.0 \(x 1\.3\)"),
    ],
)
def test_scales_that_no_weights_can_take_are_refused_by_hop(planned, tmp_path, kind, path, said):
    made = planned(scaled(path), kind)
    digest, _ = made.build()
    assert digest
    with pytest.raises(ParameterError, match=rf"^input_scale: .*inputs of .*{said}"):
        made.write(tmp_path / "out")
    with pytest.raises(ParameterError, match=rf"^input_scale: .*{said}"):
        Stream().send(made.plan, lambda _: pytest.fail("a tensor was sent"))
    assert not (tmp_path / "out").exists()


def test_embedding_that_its_class_multiplies_takes_no_scale(planned, tmp_path):
    root = parts(tmp_path / "models", "gemma3", tie_word_embeddings=False)
    made = planned(scaled(FIRST), root=root)
    with pytest.raises(ParameterError, match=r"^input_scale: .*layers\.0 \(x 1\.3\)"):
        made.write(tmp_path / "out")


def test_scale_past_the_type_is_refused_in_the_folder_by_tensor(planned, tmp_path):
    path = [("base", 0, 3e6), *FIRST[1:]]
    with pytest.raises(NonFiniteError, match=r"embed_tokens\.weight: not finite in float16 times"):
        planned(scaled(path, dtype="float16"), "llama").write(tmp_path / "out")


def test_scales_are_those_of_the_last_build_and_part_of_the_digest(planned):
    made = planned(scaled(PATH), "llama")
    plain = plan(read_recipe(scaled([(m, i, 1.0) for m, i, _ in PATH])), made.parents)
    candidate, logits, digests = Candidate(), [], []
    for one in (plain, made.plan, plain):
        digests.append(candidate.build(one))
        with torch.no_grad():
            logits.append(candidate.model(IDS).logits)
    assert digests[0] == digests[2] != digests[1]
    assert logits[0].equal(logits[2])
    assert not logits[0].equal(logits[1])


def test_document_that_is_no_result_takes_no_scale(planned):
    inner = scaled(FIRST).replace("merge_method", "name: inner\nmerge_method", 1)
    outer = "merge_method: linear\nmodels: [{model: inner, parameters: {weight: 1}}]\n"
    with pytest.raises(ParameterError, match=r"^document 'inner': input_scale of layers \[0\]"):
        planned(f"{inner}---\n{outer}", "llama")
