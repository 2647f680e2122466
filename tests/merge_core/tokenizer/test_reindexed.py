from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from merge_core.errors import CheckpointError, ShapeError
from merge_core.parents.weight_files import SINGLE
from merge_core.recipe.tokenizer_schema import TokenizerSetting, TokenSource
from tests.merge_core.tokenizer.tiny import (
    EMBED,
    EXTRA,
    FORCED,
    HEAD,
    INDEXED,
    ORDER,
    TEXTS,
    ZERO,
    Case,
    bpe,
    copy,
    make_model,
    words,
)

pytestmark = pytest.mark.filterwarnings("ignore:numpy.core is deprecated:DeprecationWarning")


@pytest.mark.parametrize("tensor", INDEXED)
def test_own_row_is_kept_and_a_missing_one_is_the_bases(models, tensor):
    case = Case(models)
    for name in ("b", "c"):
        rows = case.rows(name, tensor)
        for token in case.tokens("a"):
            donor = name if token in case.tokens(name) else "a"
            assert torch.equal(rows[token], case.old(donor, token, tensor))


def test_row_of_a_token_that_one_model_has_is_that_models(models):
    case = Case(models)
    only = case.tokens("b") - case.tokens("a") - case.tokens("c")
    assert only
    for token in only:
        for name in ORDER:
            assert torch.equal(case.rows(name)[token], case.old("b", token))


def test_row_of_a_token_that_some_models_have_and_the_base_lacks_is_the_mean(models):
    case = Case(models)
    mean = (case.old("b", "<|im_end|>") + case.old("c", "<|im_end|>")) / 2
    torch.testing.assert_close(case.rows("a")["<|im_end|>"], mean)
    assert torch.equal(case.rows("b")["<|im_end|>"], case.old("b", "<|im_end|>"))


def test_without_a_base_the_mean_stands_for_a_missing_row(models):
    case = Case(models, base=None)
    shared = sorted((case.tokens("a") & case.tokens("b")) - case.tokens("c"))
    mean = (case.old("a", shared[0]) + case.old("b", shared[0])) / 2
    torch.testing.assert_close(case.rows("c")[shared[0]], mean)


def test_padded_rows_are_the_mean_of_all_others(models):
    made = Case(models, TokenizerSetting(pad_to_multiple_of=64)).made
    rows = made.reindexed("b").tensor(EMBED)
    real = len(made.token_ids)
    assert (made.size, len(rows)) == (-(-real // 64) * 64, made.size)
    assert made.size > real
    torch.testing.assert_close(rows[real:], rows[:real].mean(0).expand(made.size - real, 8))


def test_row_without_a_token_between_others_is_padding(tmp_path):
    tokenizer = words("<unk>", "cat", "dog")
    make_model(tmp_path / "a", tokenizer, 0, rows=6)
    document = json.loads((tmp_path / "a" / "tokenizer.json").read_text())
    document["model"]["vocab"]["dog"] = 4
    (tmp_path / "a" / "tokenizer.json").write_text(json.dumps(document))
    case = Case(tmp_path, order=("a",))
    rows, stored = case.made.reindexed("a").tensor(EMBED), case.parents["a"].tensor(EMBED)
    assert case.made.size == 5
    assert torch.equal(rows[[0, 1, 4]], stored[[0, 1, 4]])
    torch.testing.assert_close(rows[2:4], stored[[0, 1, 4]].mean(0).expand(2, 8))


def test_size_that_fits_is_not_padded(models):
    size = Case(models).made.size
    assert Case(models, TokenizerSetting(pad_to_multiple_of=size)).made.size == size


def test_forced_source_replaces_own_rows_too(models):
    case = Case(models, TokenizerSetting("base", (("t", FORCED),)))
    for name in ORDER:
        assert torch.equal(case.rows(name)["t"], case.old("b", "t"))


def test_source_that_is_not_forced_leaves_own_rows(models):
    tokens = (("<|im_end|>", ZERO),)
    case = Case(models, TokenizerSetting("union", tokens))
    assert not case.rows("a")["<|im_end|>"].any()
    assert torch.equal(case.rows("c")["<|im_end|>"], case.old("c", "<|im_end|>"))


@pytest.mark.parametrize("source", [{"token": "<|im_start|>"}, {"token_id": 3}])
def test_row_may_be_that_of_another_token(models, source):
    tokens = (("<|new|>", TokenSource("model_token", "b", **source)),)
    case = Case(models, TokenizerSetting("base", tokens), order=("a", "c"))
    ids = case.tokenizer("b").get_vocab()
    row = case.parents["b"].tensor(HEAD)[ids[source["token"]] if "token" in source else 3]
    for name in ("a", "c"):
        assert torch.equal(case.rows(name, HEAD)["<|new|>"], row)


def test_vector_with_an_entry_per_token_is_re_indexed(models, tmp_path):
    root = copy(models, tmp_path, *ORDER)
    for name in ORDER:
        stored = load_file(root / name / SINGLE)
        save_file({**stored, "bias": stored[HEAD][:, 0].clone()}, root / name / SINGLE)
    case = Case(root, TokenizerSetting(pad_to_multiple_of=64), indexed=(*INDEXED, "bias"))
    for name in ORDER:
        made = case.made.reindexed(name)
        torch.testing.assert_close(made.tensor("bias"), made.tensor(HEAD)[:, 0])


def test_reindexed_parent_is_the_parent_but_for_its_vocabulary(models):
    case = Case(models)
    parent, made = case.parents["b"], case.made.reindexed("b")
    assert (made.reference, made.folder, made.located) == ("b", parent.folder, parent.located)
    assert (made.config, made.digest) == (parent.config, parent.digest)
    assert made.tensors.keys() == parent.tensors.keys()
    for name, info in made.tensors.items():
        assert made.tensor(name).shape == info.shape
        if name not in INDEXED:
            assert info == parent.tensors[name]
            assert torch.equal(made.tensor(name), parent.tensor(name))


def test_parent_that_has_the_vocabulary_gives_its_own_pages(models):
    case = Case(models, TokenizerSetting("base"))
    made = case.made.reindexed("a")
    assert torch.equal(made.tensor(EMBED), case.parents["a"].tensor(EMBED))
    assert made.tensors == case.parents["a"].tensors


def test_parents_are_left_as_they_were(models):
    case = Case(models)
    before = {name: case.parents[name].tensor(EMBED).clone() for name in ORDER}
    for name in ORDER:
        case.rows(name)
        assert torch.equal(case.parents[name].tensor(EMBED), before[name])


def test_stored_type_stays_unless_rows_are_means(models, tmp_path):
    for i, name in enumerate(ORDER):
        make_model(tmp_path / name, bpe(TEXTS[name], EXTRA[name]), i, dtype="bfloat16")
    case = Case(tmp_path)
    types = {name: case.made.reindexed(name).tensor(EMBED).dtype for name in ORDER}
    assert types == {"a": torch.float32, "b": torch.bfloat16, "c": torch.bfloat16}
    assert {case.made.reindexed(name).tensors[EMBED].dtype for name in ORDER} == {"BF16"}
    mean = sum(case.old(name, "<|im_end|>").float() for name in ("b", "c")) / 2
    torch.testing.assert_close(case.rows("a")["<|im_end|>"], mean)
    padded = Case(tmp_path, TokenizerSetting(pad_to_multiple_of=64)).made.reindexed("b")
    assert padded.tensor(EMBED).dtype == torch.float32


def test_rows_from_a_parent_of_another_type_are_not_rounded(models, tmp_path):
    root = copy(models, tmp_path, "b")
    make_model(root / "a", bpe(TEXTS["a"]), 0, dtype="bfloat16")
    case = Case(root, order=("a", "b"))
    assert torch.equal(case.rows("a")["Ġzebra"], case.old("b", "Ġzebra"))


def test_donor_with_other_columns_is_refused(models, tmp_path):
    root = copy(models, tmp_path, "a", "b")
    stored = load_file(root / "b" / SINGLE)
    save_file({**stored, EMBED: stored[EMBED][:, :4].clone()}, root / "b" / SINGLE)
    made = Case(root, order=("a", "b")).made
    with pytest.raises(ShapeError, match=r"a row of a is \(8,\), one of b \(4,\)"):
        made.reindexed("a")


def test_donor_without_the_tensor_is_refused(models, tmp_path):
    root = copy(models, tmp_path, "a", "b")
    stored = load_file(root / "b" / SINGLE)
    del stored[HEAD]
    save_file(stored, root / "b" / SINGLE)
    made = Case(root, order=("a", "b")).made
    with pytest.raises(
        CheckpointError, match=r"lm_head\.weight: a has it and needs rows .* from b"
    ):
        made.reindexed("a")
