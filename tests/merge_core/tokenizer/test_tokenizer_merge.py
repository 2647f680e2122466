"""Merges of models with different vocabularies, live and on disk, as a user would run them."""

import json

import pytest
import torch

from merge_core.errors import ShapeError

MEAN = """
merge_method: linear
models: [{model: base}, {model: one}]
parameters: {weight: 1}
dtype: float32
"""


def extended(folder, token, seed=0):
    """Give a model and its tokenizer one more token, with rows of its own."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens([token])
    model = AutoModelForCausalLM.from_pretrained(folder)
    stream = torch.Generator().manual_seed(seed)
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    with torch.no_grad():
        for rows in (model.get_input_embeddings().weight, model.get_output_embeddings().weight):
            rows[-1] = torch.randn(rows.shape[1], generator=stream)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@pytest.fixture(params=["llama", "llama-tied", "gpt-neox"])
def kind(request):
    return request.param


@pytest.fixture
def root(own_family, kind):
    folder = own_family(kind)
    extended(folder / "one", "<tool>")
    return folder


def opened(folder):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    return model.eval(), AutoTokenizer.from_pretrained(folder)


def test_different_vocabularies_without_a_tokenizer_are_refused_with_the_way_out(
    planned, root, kind
):
    with pytest.raises(ShapeError, match=r"is \(\d+, 16\).*set tokenizer: {source: union} or"):
        planned(MEAN, kind, root=root)


def test_union_has_all_tokens_and_every_row_is_merged_where_it_belongs(
    planned, root, kind, tmp_path
):
    made = planned(f"{MEAN}tokenizer: {{source: union}}\n", kind, root=root)
    digest, live = made.build()
    assert made.write(tmp_path / "out") == digest
    model, tokenizer = opened(tmp_path / "out")
    size = len(tokenizer)
    assert model.config.vocab_size == size == model.get_input_embeddings().weight.shape[0]
    (new,) = tokenizer("<tool>").input_ids
    one = opened(root / "one")[0].get_input_embeddings().weight
    base = opened(root / "base")[0].get_input_embeddings().weight
    rows = model.get_input_embeddings().weight
    torch.testing.assert_close(rows[new], one[-1])  # the base lacks it: the only donor's row
    torch.testing.assert_close(rows[5], (base[5] + one[5]) / 2)
    ids = tokenizer("2+3=<tool>5", return_tensors="pt").input_ids
    with torch.no_grad():
        assert live(ids).logits.equal(model(ids).logits)


def test_base_keeps_its_own_tokens_only(planned, root, kind, tmp_path):
    text = f"base_model: base\n{MEAN}tokenizer_source: base\n"
    planned(text, kind, root=root).write(tmp_path / "out")
    _, tokenizer = opened(tmp_path / "out")
    assert "<tool>" not in tokenizer.get_vocab()
    assert tokenizer.get_vocab() == opened(root / "base")[1].get_vocab()


def test_rows_are_padded_to_a_multiple(planned, root, kind, tmp_path):
    text = f"{MEAN}tokenizer: {{source: union, pad_to_multiple_of: 32}}\n"
    made = planned(text, kind, root=root)
    assert made.write(tmp_path / "out") == made.build()[0]
    model, _ = opened(tmp_path / "out")
    assert model.get_input_embeddings().weight.shape[0] == model.config.vocab_size
    assert model.config.vocab_size % 32 == 0


def test_vocabulary_of_another_model_brings_its_special_tokens(planned, root, kind, tmp_path):
    for file in ("config.json", "generation_config.json"):
        path = root / "one" / file
        path.write_text(json.dumps(json.loads(path.read_text()) | {"eos_token_id": [2, 9]}))
    text = f"base_model: base\n{MEAN}tokenizer: {{source: one}}\n"
    made = planned(text, kind, root=root)
    _, live = made.build()
    made.write(tmp_path / "out")
    model, tokenizer = opened(tmp_path / "out")
    assert "<tool>" in tokenizer.get_vocab()
    for found in (live, model):
        assert found.config.eos_token_id == found.generation_config.eos_token_id == [2, 9]


@pytest.mark.parametrize("tokenizer", ["", "tokenizer: {source: union}\n"])
def test_chat_template_of_the_recipe_is_the_results(planned, root, kind, tmp_path, tokenizer):
    for name in ("base", "one"):
        path = root / name / "tokenizer_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"chat_template": "old"}))
    model = "one" if tokenizer else "base"
    text = (
        MEAN.replace("{model: one}", f"{{model: {model}}}")
        if tokenizer
        else ("merge_method: passthrough\nmodels: [{model: base}]\n")
    )
    planned(f"{text}{tokenizer}chat_template: chatml\n", kind, root=root).write(tmp_path / "out")
    _, found = opened(tmp_path / "out")
    shown = found.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False)
    assert "<|im_start|>user\nhi<|im_end|>" in shown
