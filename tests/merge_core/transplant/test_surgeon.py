"""A model with another tokenizer: which rows are whose, in numbers, and a folder that runs."""

import json
import re
import shutil

import pytest
import torch
from safetensors.torch import load_file

from merge_core.errors import CheckpointError, MergeError, OutputExistsError
from merge_core.parents.open import open_parents
from merge_core.parents.weight_files import SINGLE
from merge_core.transplant.surgeon import GENERATION, RECORD, tokensurgeon
from tests.merge_core.tokenizer.tiny import (
    EMBED,
    EXTRA,
    HEAD,
    INDEXED,
    TEXTS,
    bpe,
    edit,
    make_model,
    marked,
    pieces,
    resize,
)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Models with byte-level tokenizers (a, b, wide), one with marked words, one with pieces."""
    root = tmp_path_factory.mktemp("surgeon")
    made = {
        "a": (bpe(TEXTS["a"], ("<|im_end|>",)), None),
        "b": (bpe(TEXTS["b"], EXTRA["b"]), None),
        "wide": (bpe(TEXTS["b"]), 64),
        "marked": (marked(), None),
        "pieces": (pieces(), None),
        "half": (bpe(TEXTS["c"]), None),
    }
    for i, (name, (tokenizer, rows)) in enumerate(made.items()):
        make_model(root / name, tokenizer, i, rows, "bfloat16" if name == "half" else "float32")
    return root


def vocabulary(folder):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder).get_vocab()


def rows(folder, tensor):
    stored = load_file(folder / SINGLE)[tensor]
    return {token: stored[i] for token, i in vocabulary(folder).items()}


def test_shared_tokens_are_copied_and_others_are_means_of_subwords_or_of_all(models, tmp_path):
    told = tokensurgeon(str(models / "a"), str(models / "b"), tmp_path / "o")
    for tensor in INDEXED:
        new, old = rows(tmp_path / "o", tensor), rows(models / "a", tensor)
        shared = new.keys() & old.keys()
        assert {"h", "Ġthe", "<s>", "<|im_end|>"} <= shared
        assert all(new[token].equal(old[token]) for token in shared)
        cut = {token: split(models / "a", token) for token in new.keys() - shared}
        known = {token: parts for token, parts in cut.items() if "".join(parts) == token}
        assert told.rows["subwords"] == len(known) >= 2
        for token, parts in known.items():
            torch.testing.assert_close(new[token], sum(old[x] for x in parts) / len(parts))
        mean = torch.stack([*old.values()]).double().mean(0).float()
        for token in ("z", "<|im_start|>"):  # no letter of a, a special token that a lacks
            torch.testing.assert_close(new[token], mean)
    assert vocabulary(tmp_path / "o") == vocabulary(models / "b")
    assert told.rows["after"] == len(new) == sum(told.rows[x] for x in KINDS)
    assert told.rows["shared"] == len(shared)
    assert told.rows["before"] == len(old)
    assert json.loads((tmp_path / "o" / RECORD).read_text()) == told.plain()


def split(folder, token):
    """What a whole tokenizer makes of a token's text."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder).tokenize(token.replace("Ġ", " "))


KINDS = ("shared", "role", "subwords", "mean")


def test_all_other_weights_are_the_model_s_to_the_bit(models, tmp_path):
    told = tokensurgeon(str(models / "half"), str(models / "b"), tmp_path / "o")
    new, old = load_file(tmp_path / "o" / SINGLE), load_file(models / "half" / SINGLE)
    assert told.tensors == sorted(INDEXED)
    assert new.keys() == old.keys()
    for name in old.keys() - {*INDEXED}:
        assert new[name].equal(old[name])
    assert {x.dtype for x in new.values()} == {torch.bfloat16}


@pytest.mark.parametrize(("model", "donor"), [("marked", "a"), ("a", "marked")])
def test_tokens_of_two_alphabets_meet_by_what_they_stand_for(models, tmp_path, model, donor):
    tokensurgeon(str(models / model), str(models / donor), tmp_path / "o")
    new, old = rows(tmp_path / "o", EMBED), rows(models / model, EMBED)
    pairs = [("\u2581the", "Ġthe"), ("\u2581", "Ġ"), ("the", "the"), ("at", "at")]
    here, there = (0, 1) if model == "marked" else (1, 0)
    known = [pair for pair in pairs if pair[there] in new and pair[here] in old]
    assert ("\u2581the", "Ġthe") in known
    for pair in known:
        assert new[pair[there]].equal(old[pair[here]])


def test_bytes_are_their_letters_and_letters_are_means_of_their_bytes(models, tmp_path):
    make_model(tmp_path / "e", bpe(["é è"]), 9)
    tokensurgeon(str(models / "marked"), str(tmp_path / "e"), tmp_path / "o")
    new, old = rows(tmp_path / "o", EMBED), rows(models / "marked", EMBED)
    assert new["Ã"].equal(old["<0xC3>"])  # a byte of both, under other names
    assert new["Ã©"].equal(old["é"])
    torch.testing.assert_close(new["Ã¨"], (old["<0xC3>"] + old["<0xA8>"]) / 2)
    tokensurgeon(str(tmp_path / "e"), str(models / "marked"), tmp_path / "back")
    back, e = rows(tmp_path / "back", EMBED), rows(tmp_path / "e", EMBED)
    assert back["é"].equal(e["Ã©"])
    assert back["<0xC3>"].equal(e["Ã"])


def test_special_tokens_of_one_role_meet_and_ids_are_the_donor_s(models, tmp_path):
    donor = shutil.copytree(models / "pieces", tmp_path / "d")
    (donor / GENERATION).unlink()
    edit(donor / "config.json", bos_token_id=1, eos_token_id=[2], pad_token_id=0)
    model = shutil.copytree(models / "a", tmp_path / "m")
    edit(model / "tokenizer_config.json", unk_token="<s>", sep_token="</s>")
    told = tokensurgeon(str(model), str(donor), tmp_path / "o")
    new, old = rows(tmp_path / "o", HEAD), rows(model, HEAD)
    assert new["[SEP]"].equal(old["</s>"])
    assert new["[UNK]"].equal(old["<s>"])
    assert told.rows["role"] == 2
    for name in ("config.json", GENERATION):
        config = json.loads((tmp_path / "o" / name).read_text())
        ids = [config[f"{role}_token_id"] for role in ("bos", "eos", "pad")]
        assert ids == [1, [2], 0], name


def test_rows_of_the_donor_s_model_without_a_token_get_the_mean(models, tmp_path):
    told = tokensurgeon(str(models / "a"), str(models / "wide"), tmp_path / "o")
    new, old = (load_file(x / SINGLE)[EMBED] for x in (tmp_path / "o", models / "a"))
    assert len(new) == told.rows["after"] == 64
    assert json.loads((tmp_path / "o" / "config.json").read_text())["vocab_size"] == 64
    torch.testing.assert_close(new[63], old.double().mean(0).float())


def test_tokens_beyond_the_rows_of_the_donor_s_model_get_rows(models, tmp_path):
    donor = shutil.copytree(models / "b", tmp_path / "d")
    resize(donor, 20)
    told = tokensurgeon(str(models / "a"), str(donor), tmp_path / "o")
    assert told.rows["after"] == len(vocabulary(models / "b")) > 20


def test_rows_of_the_model_without_a_token_do_not_count_in_the_mean(models, tmp_path):
    tokensurgeon(str(models / "wide"), str(models / "a"), tmp_path / "o")
    number = len(vocabulary(models / "wide"))
    old = load_file(models / "wide" / SINGLE)[EMBED]
    torch.testing.assert_close(
        rows(tmp_path / "o", EMBED)["<|im_end|>"], old[:number].double().mean(0).float()
    )


def test_a_folder_with_a_tokenizer_alone_will_do(models, tmp_path):
    bpe(TEXTS["b"]).save_pretrained(tmp_path / "d")
    told = tokensurgeon(str(models / "a"), str(tmp_path / "d"), tmp_path / "o")
    assert told.rows["after"] == len(vocabulary(tmp_path / "d"))


def test_a_tied_head_stays_tied(models, tmp_path):
    model = shutil.copytree(models / "a", tmp_path / "m")
    edit(model / "config.json", tie_word_embeddings=True)
    stored = load_file(model / SINGLE)
    del stored[HEAD]
    from safetensors.torch import save_file

    save_file(stored, model / SINGLE, {"format": "pt"})
    told = tokensurgeon(str(model), str(models / "b"), tmp_path / "o")
    assert told.tensors == [EMBED]
    assert HEAD not in load_file(tmp_path / "o" / SINGLE)


def test_transformers_runs_what_is_written(models, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokensurgeon(str(models / "a"), str(models / "marked"), tmp_path / "o")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "o")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "o")
    ids = tokenizer("the cat", return_tensors="pt").input_ids
    assert model(ids).logits.shape == (1, ids.shape[1], len(tokenizer))
    assert tokenizer.decode(ids[0]) == "the cat"


def test_a_model_with_its_own_tokenizer_stays_as_it_is(models, tmp_path):
    told = tokensurgeon(str(models / "b"), str(models / "b"), tmp_path / "o")
    (before,) = open_parents([str(models / "b")], [tmp_path]).values()
    (after,) = open_parents([str(tmp_path / "o")], [tmp_path]).values()
    assert after.digest == before.digest
    assert told.rows["shared"] == told.rows["after"]


def refused(error, rule, *given, **more):
    with pytest.raises(error, match=re.escape(rule)) as told:
        tokensurgeon(*map(str, given[:2]), given[2], **more)
    assert "\n" not in str(told.value)


def test_what_cannot_be_is_refused_in_a_line_and_leaves_nothing(models, tmp_path):
    a, out = models / "a", tmp_path / "o"
    (tmp_path / "empty").mkdir()
    refused(CheckpointError, "no tokenizer.json", a, tmp_path / "empty", out)
    refused(MergeError, "no such folder", a, tmp_path / "nowhere", out)
    assert not out.exists()
    out.mkdir()
    (out / "mine").write_text("x")
    refused(OutputExistsError, "exists", a, models / "b", out)
    refused(
        OutputExistsError, "tokensurgeon did not write it", a, models / "b", out, overwrite=True
    )


def test_its_own_folder_is_replaced_where_asked(models, tmp_path):
    for donor in ("b", "marked"):
        tokensurgeon(str(models / "a"), str(models / donor), tmp_path / "o", overwrite=True)
    assert vocabulary(tmp_path / "o") == vocabulary(models / "marked")
