import numpy as np
import pytest
import torch

from evaluators.engines.hf import residual_stream
from evaluators.engines.hf.residual_stream import distances
from merge_core.errors import EvaluationError, NonFiniteError
from tests.evaluators.engines.hf.test_learning import SHAPE, make

DEPTH = SHAPE["num_hidden_layers"]
CLASSES = ("Llama", "Qwen3", "GPTNeoX", "Gemma2", "Mixtral", "Mamba")


def texts(*lengths):
    stream = np.random.default_rng(0)
    return [stream.integers(2, 48, n).astype(np.int32) for n in lengths]


def layers_of(model):
    base = model.base_model
    return [*base.layers]


def streams(model, ids):
    """x_0 to x_L of one text alone by transformers; the last is what goes into the last norm."""
    norm = next(
        module
        for name, module in model.base_model.named_children()
        if name in ("norm", "final_layer_norm", "norm_f")
    )
    seen = []
    hook = norm.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    with torch.no_grad():
        out = model(torch.from_numpy(ids.astype(np.int64))[None], output_hidden_states=True)
    hook.remove()
    given = out.hidden_states
    if "Mamba" in type(model).__name__:  # lists what comes out of layers, not what goes in
        given = (model.get_input_embeddings()(torch.from_numpy(ids.astype(np.int64))[None]), *given)
        given = (*given[:-2], given[-1])
    hidden = [x[0].detach().double().numpy() for x in given]
    assert len(hidden) == DEPTH + 1
    assert not np.allclose(hidden[-1], seen[-1][0].double().numpy()), "the norm changes the last"
    return [*hidden[:-1], seen[-1][0].double().numpy()]


def cosine(a, b):
    return (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)


@pytest.mark.parametrize("name", CLASSES)
def test_distances_are_those_of_transformers_own_hidden_states(name):
    model, given = make(name), texts(3, 17, 1, 40, 40, 5)
    found = distances(model, layers_of(model), given, most_rows=2)
    by_text = [streams(model, ids) for ids in given]
    assert (found.texts, found.tokens, found.layers) == (6, 106, DEPTH)
    for n in range(1, DEPTH + 1):
        for i in range(DEPTH - n + 1):
            angles = [np.arccos(cosine(x[i][-1], x[i + n][-1])) / np.pi for x in by_text]
            assert found.angular[n - 1][i] == pytest.approx(np.mean(angles), abs=2e-6)
    for i in range(DEPTH):
        cosines = np.concatenate([cosine(x[i], x[i + 1]) for x in by_text])
        assert found.influence[i] == pytest.approx(1 - cosines.mean(), abs=2e-6)


@pytest.mark.parametrize("name", ["Llama", "GPTNeoX"])
def test_layer_that_adds_nothing_has_distance_zero_and_is_the_block_to_cut(name):
    model = make(name)
    silent = model.base_model.layers[1]
    ends = ("o_proj", "down_proj", "attention.dense", "dense_4h_to_h")
    with torch.no_grad():
        for part, module in silent.named_modules():
            if part.endswith(ends):
                for weight in module.parameters():
                    weight.zero_()
    found = distances(model, layers_of(model), texts(9, 30, 64), most_rows=8)
    assert found.angular[0][1] == 0.0
    assert found.influence[1] == 0.0
    assert found.best(1) == 1
    assert min(found.angular[0][0], found.angular[0][2], found.influence[0]) > 0.01
    # a block with the silent layer turns the stream as much as one without
    assert found.angular[1][0] == pytest.approx(found.angular[0][0], abs=1e-9)
    assert found.angular[1][1] == pytest.approx(found.angular[0][2], abs=1e-9)


def test_layer_that_turns_the_stream_around_has_distance_one():
    model = make("Llama")

    class Around(torch.nn.Module):
        def forward(self, hidden_states, **_):
            return -3 * hidden_states

    model.model.layers[1] = Around()
    found = distances(model, layers_of(model), texts(7), most_rows=1)
    assert found.angular[0][1] == pytest.approx(1.0)
    assert found.influence[1] == pytest.approx(2.0)


def test_layer_that_writes_to_its_input_is_measured_all_the_same():
    model = make("Llama")

    class Inside(torch.nn.Module):
        def forward(self, hidden_states, **_):
            return hidden_states.neg_()

    model.model.layers[2] = Inside()
    found = distances(model, layers_of(model), texts(7), most_rows=1)
    assert found.angular[0][2] == pytest.approx(1.0)


def test_small_angles_keep_their_digits():
    """An arc cosine in float64 knows no angle below 1e-8."""
    one = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    other = torch.tensor([[1.0, 1e-12]], dtype=torch.float64)
    angle = residual_stream._angles([one, other])[0, 1] * np.pi
    assert angle == pytest.approx(1e-12, rel=1e-6)


def test_stream_of_zeros_is_orthogonal_to_all():
    none, one = torch.zeros(1, 2, dtype=torch.float64), torch.ones(1, 2, dtype=torch.float64)
    found = residual_stream._angles([none, one, none])
    assert found[0, 1] == found[1, 2] == found[0, 2] == pytest.approx(0.5)


def test_padding_and_batches_change_nothing():
    model, given = make("Llama"), texts(3, 9, 30, 31, 100)
    one = distances(model, layers_of(model), given, most_rows=1)
    many = distances(model, layers_of(model), given[::-1], most_rows=16)
    for a, b in zip(one.angular, many.angular, strict=True):
        assert a == pytest.approx(b, abs=1e-6)
    assert one.influence == pytest.approx(many.influence, abs=1e-6)


def test_texts_past_the_length_where_positions_change_are_read_without_padding():
    rope = {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [3.0] * 4}
    rope |= {"rope_theta": 10000.0, "original_max_position_embeddings": 32}
    model = make("Llama", rope_parameters=rope)
    given = texts(31, 33, 40, 12)
    found = distances(model, layers_of(model), given, most_rows=4)
    by_text = [streams(model, ids) for ids in given]
    for i in range(DEPTH):
        angles = [np.arccos(cosine(x[i][-1], x[i + 1][-1])) / np.pi for x in by_text]
        assert found.angular[0][i] == pytest.approx(np.mean(angles), abs=2e-6)


def test_text_that_fills_the_window_of_learnt_positions_is_read():
    import transformers

    config = transformers.GPT2Config(n_embd=16, n_layer=2, n_head=2, n_positions=50, vocab_size=48)
    model = transformers.GPT2LMHeadModel(config).eval()
    found = distances(model, [*model.transformer.h], texts(49, 50), most_rows=2)
    assert found.tokens == 99


def test_stream_that_is_not_finite_is_refused():
    model = make("Llama")
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight[0, 0] = float("nan")
    with pytest.raises(NonFiniteError, match="the residual stream has NaN or infinite entries"):
        distances(model, layers_of(model), texts(7), most_rows=1)


def test_layers_that_do_not_run_one_after_the_other_are_refused():
    model = make("Llama")
    turned = layers_of(model)[::-1]
    with pytest.raises(
        EvaluationError, match=r"LlamaModel|LlamaForCausalLM: expected its 3 layers"
    ):
        distances(model, turned, texts(7), most_rows=1)


def test_hooks_are_gone_afterwards_also_after_an_error():
    model = make("Llama")
    distances(model, layers_of(model), texts(7), most_rows=1)
    with pytest.raises(EvaluationError):
        distances(model, layers_of(model)[::-1], texts(7), most_rows=1)
    for layer in layers_of(model):
        assert not layer._forward_hooks
        assert not layer._forward_pre_hooks
