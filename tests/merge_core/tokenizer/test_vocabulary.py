"""One vocabulary for parents with different ones, checked by hand and against mergekit 0.1.5.

mergekit is called as a program. Rows are compared token by token: the ids of a union are not
mergekit's, which appends tokens in the order of a hash map. Other differences:

- What is an ordinary token in another model is an added token in mergekit's result, and matches
  inside the base's words (``test_mergekit_encodes_the_bases_text_in_another_way``).
- A token of another model beyond its rows stops mergekit with a KeyError; here it is absent there.
- A tokenizer that a model gives as ``source`` is cut to its rows as the base's is.
- Every entry under ``tokens`` must hold, also where no model lacks the token.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import shutil

import pytest
import torch
from safetensors.torch import load_file

from merge_core.errors import CheckpointError, MergeWarning, ParameterError
from merge_core.parents.open import open_parents
from merge_core.recipe.tokenizer_schema import TokenizerSetting, TokenSource, with_references
from merge_core.tokenizer import parent_tokenizer
from merge_core.tokenizer.insert import insert
from merge_core.tokenizer.vocabulary import vocabulary
from tests.merge_core.tokenizer.tiny import (
    EMBED,
    EXTRA,
    HEAD,
    INDEXED,
    ORDER,
    TEXTS,
    ZERO,
    Case,
    bpe,
    copy,
    edit,
    make_model,
    resize,
    words,
)

pytestmark = pytest.mark.filterwarnings("ignore:numpy.core is deprecated:DeprecationWarning")


def test_union_has_the_tokens_of_all_models_and_the_ids_of_the_base(models):
    case = Case(models)
    made = case.made.token_ids
    assert set(made) == case.tokens("a") | case.tokens("b") | case.tokens("c")
    assert case.tokenizer("a").get_vocab().items() <= made.items()
    assert sorted(made.values()) == list(range(len(made)))
    assert case.made.size == len(made) == len(case.made.tokenizer)


def test_union_appends_tokens_by_model_and_row(models):
    case = Case(models)
    known, expected = case.tokens("a"), []
    for name in ("b", "c"):
        ids = case.tokenizer(name).get_vocab()
        expected += [t for t in sorted(ids, key=ids.get) if t not in known]
        known |= set(ids)
    appended = sorted(case.made.token_ids, key=case.made.token_ids.get)[-len(expected) :]
    assert appended == expected


def test_union_follows_the_recipe_order(models):
    ids = [Case(models, order=order).made.token_ids for order in (ORDER, ("b", "c", "a"))]
    assert ids[0] == ids[1]
    assert Case(models, order=("c", "b", "a")).made.token_ids != ids[0]


def test_union_without_a_base_starts_with_the_first_model(models):
    case = Case(models, base=None, order=("b", "a"))
    assert case.tokenizer("b").get_vocab().items() <= case.made.token_ids.items()


def test_base_source_is_the_tokenizer_of_the_base(models):
    case = Case(models, TokenizerSetting("base"), base="b")
    assert case.made.token_ids == case.tokenizer("b").get_vocab()


def test_model_source_is_that_models_tokenizer_even_if_it_is_not_merged(models):
    case = Case(models, TokenizerSetting("c"), order=("a", "b"))
    assert case.made.token_ids == case.tokenizer("c").get_vocab()


SENTENCES = ["the cat sat on the mat", "then there", "them<s>mat", "neat seat", "athe hat"]


@pytest.mark.parametrize("sentence", SENTENCES)
def test_text_of_the_base_is_encoded_as_before(models, sentence):
    case = Case(models)
    assert case.made.tokenizer(sentence) == case.tokenizer("a")(sentence)


def test_any_text_of_the_base_is_encoded_as_before(models):
    case, draw = Case(models), random.Random(0)
    texts = ["".join(draw.choices("acehmnorst   ", k=30)) for _ in range(300)]
    before = case.tokenizer("a")(texts)["input_ids"]
    assert case.made.tokenizer(texts)["input_ids"] == before


def test_characters_that_the_base_does_not_know_are_found(models):
    case = Case(models)
    assert case.tokenizer("a").tokenize("zebra") == ["e", "r", "a"]
    assert case.made.tokenizer.tokenize("zebra") == ["z", "e", "b", "r", "a"]


def test_whole_words_are_found_where_the_base_looks_for_them_before_merging(models, tmp_path):
    root = copy(models, tmp_path, "b")
    make_model(root / "a", bpe(TEXTS["a"], ignore_merges=True), 0)
    assert Case(root, order=("a", "b")).made.tokenizer.tokenize("zebra zeb")[0] == "zebra"


def test_added_tokens_of_other_models_are_found_in_text(models):
    made = Case(models).made
    found = made.tokenizer.tokenize("<|im_start|>the<|im_end|>")
    assert found == ["<|im_start|>", "the", "<|im_end|>"]
    facts = made.tokenizer.added_tokens_decoder[made.token_ids["<|im_end|>"]]
    assert (facts.special, facts.normalized) == (True, False)


def test_ordinary_tokens_of_other_models_can_be_decoded(models):
    made = Case(models).made
    assert made.tokenizer.decode([made.token_ids["Ġzebra"]]) == " zebra"


def test_special_tokens_stay_those_of_the_base(models):
    tokenizer = Case(models).made.tokenizer
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token) == (0, 1, None)


def test_saved_tokenizer_is_the_one_in_memory(models, tmp_path):
    from transformers import AutoTokenizer

    made = Case(models).made
    made.tokenizer.chat_template = "{{ messages }}"
    made.save(tmp_path)
    read = AutoTokenizer.from_pretrained(tmp_path)
    assert read.get_vocab() == made.token_ids
    assert read.chat_template == "{{ messages }}"
    text = "the zebra<|im_end|> sat"
    assert read(text) == made.tokenizer(text)


def test_tokenizer_whose_class_changes_it_on_reading_is_refused(models, tmp_path):
    made = Case(models).made
    made.token_ids = {**made.token_ids, "lost": made.size}
    with pytest.raises(CheckpointError, match=r"gives the token 'lost' the id None where \d+ is"):
        made.save(tmp_path)


def test_tokenizer_whose_class_adds_what_was_cut_is_refused(tmp_path):
    from transformers import GPT2Tokenizer

    vocab = {t: i for i, t in enumerate(["a", "b", "ab", "<|endoftext|>"])}
    make_model(tmp_path / "a", GPT2Tokenizer(vocab=vocab, merges=[("a", "b")]), 0, rows=3)
    with pytest.raises(CheckpointError, match=r"GPT2Tokenizer gives the token '<\|endoftext\|>'"):
        Case(tmp_path, order=("a",))


def test_token_that_only_the_setting_names_is_added(models):
    setting = TokenizerSetting("base", (("<|new|>", ZERO),))
    case = Case(models, setting)
    assert case.made.token_ids["<|new|>"] == len(case.tokens("a"))
    assert case.made.tokenizer.tokenize("cat<|new|>sat")[1:2] == ["<|new|>"]
    assert not case.rows("b")["<|new|>"].any()


def test_named_token_has_the_facts_of_the_token_that_gives_its_row(models):
    source = TokenSource("model_token", "b", token="<|im_end|>")
    made = Case(models, TokenizerSetting("base", (("<|stop|>", source),))).made
    assert made.tokenizer.added_tokens_decoder[made.token_ids["<|stop|>"]].special


def test_word_level_tokenizers_take_in_words(tmp_path):
    make_model(tmp_path / "a", words("<unk>", "cat", "dog"), 0)
    make_model(tmp_path / "b", words("dog", "<unk>", "fox"), 1)
    case = Case(tmp_path, order=("a", "b"))
    assert case.made.tokenizer.tokenize("cat fox cow dog") == ["cat", "fox", "<unk>", "dog"]
    assert torch.equal(case.rows("b")["fox"], case.old("b", "fox"))


@pytest.mark.parametrize("ending", [False, True])
def test_llama_and_gpt2_classes_keep_the_union_on_reading(tmp_path, ending):
    from transformers import GPT2Tokenizer, LlamaTokenizer

    pieces = ["<unk>", "<s>", "</s>", "▁", "a", "b", "c", "ab", "▁c"]
    merges = [("a", "b"), ("▁", "c")]
    llama = LlamaTokenizer(vocab={t: i for i, t in enumerate(pieces)}, merges=merges)
    gpt2 = GPT2Tokenizer(
        vocab={t: i for i, t in enumerate(["<|endoftext|>", "a", "d", "ad"])}, merges=[("a", "d")]
    )
    first, second = (gpt2, llama) if ending else (llama, gpt2)
    make_model(tmp_path / "a", first, 0)
    make_model(tmp_path / "b", second, 1)
    case = Case(tmp_path, order=("a", "b"))
    case.made.save(tmp_path / "a")
    assert set(case.made.token_ids) == {*pieces, "<|endoftext|>", "d", "ad"}
    assert type(case.made.tokenizer) is type(first)


def test_bpe_tokens_beyond_the_rows_are_cut_with_their_merges_and_names(models, tmp_path):
    root = copy(models, tmp_path, "a", "b")
    tokenizer = bpe(TEXTS["a"], ("<pad>",))
    tokenizer.pad_token = "<pad>"
    tokenizer.save_pretrained(root / "a")
    resize(root / "a", len(tokenizer) - 3)
    case = Case(root, TokenizerSetting("base"), order=("a", "b"))
    assert case.made.size == len(tokenizer) - 3
    assert max(case.made.token_ids.values()) == case.made.size - 1
    assert case.made.tokenizer.pad_token is None
    assert case.made.tokenizer.decode(case.made.tokenizer("the cat sat")["input_ids"])


def test_tokenizer_of_a_named_model_is_cut_to_that_models_rows(models, tmp_path):
    root = copy(models, tmp_path, "a", "b")
    resize(root / "b", 30)
    case = Case(root, TokenizerSetting("b"), order=("a", "b"))
    assert (case.made.size, len(case.made.token_ids)) == (30, 30)


def test_special_token_without_a_row_is_kept_if_another_model_has_a_row(models, tmp_path):
    root = copy(models, tmp_path, "a")
    tokenizer = bpe(TEXTS["a"], ("<|im_end|>",))
    tokenizer.pad_token = "<|im_end|>"
    tokenizer.save_pretrained(root / "a")
    resize(root / "a", len(tokenizer) - 1)
    shutil.copytree(models / "b", root / "b")
    case = Case(root, order=("a", "b"))
    assert case.made.tokenizer.pad_token == "<|im_end|>"
    assert torch.equal(case.rows("a")["<|im_end|>"], case.old("b", "<|im_end|>"))


def test_token_of_another_model_beyond_its_rows_is_absent_there(models, tmp_path):
    root = copy(models, tmp_path, *ORDER)
    resize(root / "b", len(bpe(TEXTS["b"], EXTRA["b"])) - 1)  # without a row for <|im_end|>
    case = Case(root)
    assert torch.equal(case.rows("b")["<|im_end|>"], case.old("c", "<|im_end|>"))


def test_smallest_tensor_says_how_many_rows_there_are(models, tmp_path):
    root = copy(models, tmp_path, "a", "b")
    resize(root / "b", 20, HEAD)
    assert len(Case(root, order=("a", "b")).made.ids["b"]) == 20


def test_other_tokenizer_with_tokens_beyond_the_rows_is_refused(tmp_path):
    make_model(tmp_path / "a", words("<unk>", "cat", "dog"), 0, rows=2)
    with pytest.raises(CheckpointError, match=r"token 'dog' beyond the 2 rows .*not WordLevel"):
        Case(tmp_path, order=("a",))


def test_base_or_source_without_a_tokenizer_is_refused(models, tmp_path):
    root = copy(models, tmp_path, "a", "b")
    (root / "b" / "tokenizer.json").unlink()
    for setting, base in ((TokenizerSetting("b"), "a"), (TokenizerSetting(), "b")):
        with pytest.raises(CheckpointError, match=r"/b: no tokenizer\.json; save the model's"):
            Case(root, setting, base=base, order=("a", "b"))


def test_other_model_without_a_tokenizer_gets_that_of_the_base_with_a_warning(models, tmp_path):
    root = copy(models, tmp_path, "a", "b")
    (root / "b" / "tokenizer.json").unlink()
    rows = len(load_file(root / "b" / "model.safetensors")[HEAD])
    with pytest.warns(MergeWarning, match=r"/b: no tokenizer; that of a is taken for it$"):
        case = Case(root, order=("a", "b"))
    known = {token: i for token, i in case.tokenizer("a").get_vocab().items() if i < rows}
    assert case.made.ids["b"] == known
    assert case.made.token_ids == case.tokenizer("a").get_vocab()


def test_damaged_tokenizer_is_refused(models, tmp_path):
    root = copy(models, tmp_path, "a")
    (root / "a" / "tokenizer.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"/a: its tokenizer cannot be read: "):
        Case(root, order=("a",))


@pytest.mark.parametrize("length", ["many", [512], {"tokens": 8}])
def test_tokenizer_that_can_be_read_but_not_used_is_refused(models, tmp_path, length):
    root = copy(models, tmp_path, "a")
    edit(root / "a" / "tokenizer_config.json", model_max_length=length)
    with pytest.raises(CheckpointError, match=r"/a: its tokenizer cannot be read: '>' not supp"):
        parent_tokenizer.open_tokenizer(root / "a")


@pytest.mark.parametrize(
    "name", ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "config.json"]
)
def test_json_beyond_bounds_is_refused_before_transformers_reads_it(models, tmp_path, name):
    root = copy(models, tmp_path, "a")
    parents = open_parents(["a"], [root])
    (root / "a" / name).write_text('{"a":' * 10**5)
    with pytest.raises(CheckpointError, match=rf"/a/{name}: cannot be read: nested too deep"):
        parent_tokenizer.read("a", parents, INDEXED)


@pytest.mark.parametrize("name", ["tokenizer.model", "chat_template.jinja", "merges.txt"])
def test_pipe_among_the_tokenizer_files_is_refused_and_not_waited_for(models, tmp_path, name):
    root = copy(models, tmp_path, "a")
    os.mkfifo(root / "a" / name)
    with pytest.raises(CheckpointError, match=rf"/a/{name}: .*not a regular file"):
        Case(root, order=("a",))


@pytest.mark.parametrize(
    "given",
    [
        [{"name": "default", "template": 1}],
        [{"name": "../../x", "template": "x"}],
        [{"name": "/x", "template": "x"}],
        1,
    ],
)
def test_chat_template_that_is_no_text_or_would_be_another_file_is_refused(models, tmp_path, given):
    root = copy(models, tmp_path, "a")
    edit(root / "a" / "tokenizer_config.json", chat_template=given)
    with pytest.raises(CheckpointError, match=r"/a: its tokenizer"):
        Case(root, order=("a",))


def test_tokenizer_that_cannot_be_saved_is_one_clear_error(models, tmp_path, monkeypatch):
    case = Case(models, order=("a",))

    def fail(folder):
        raise TypeError("write() argument\nmust be str")

    monkeypatch.setattr(case.made.tokenizer, "save_pretrained", fail)
    with pytest.raises(CheckpointError, match=r"cannot be saved: write\(\) argument must be str$"):
        case.made.save(tmp_path)


def test_rows_come_from_the_parents_as_they_were_when_reindexed_ones_take_their_places(models):
    case = Case(models)
    wanted = {name: case.made.reindexed(name).tensor(EMBED) for name in ORDER}
    case.parents |= {name: case.made.reindexed(name) for name in ORDER}  # as a planner does
    for name in ORDER:
        assert case.parents[name].tensor(EMBED).equal(wanted[name])


def test_slow_tokenizer_is_refused(models, tmp_path):
    root = copy(models, tmp_path, "a")
    (root / "a" / "tokenizer.json").unlink()
    (root / "a" / "vocab.json").write_text(json.dumps({"<unk>": 0, "a": 1}))
    edit(root / "a" / "tokenizer_config.json", tokenizer_class="CTRLTokenizer")
    (root / "a" / "merges.txt").write_text("#version\n")
    with pytest.raises(CheckpointError, match=r"/a: CTRLTokenizer has no form of the tokenizers"):
        Case(root, order=("a",))


def test_parent_without_an_embedding_is_refused(models):
    with pytest.raises(CheckpointError, match=r"/a: has none of wte$"):
        Case(models, indexed=["wte"])


def test_model_that_is_not_open_is_refused(models):
    parents = open_parents(["a", "b"], [models])
    setting = TokenizerSetting("bb")
    with pytest.raises(ParameterError, match=r"no model 'bb' is open, did you mean 'b'\?"):
        vocabulary(setting, parents, "a", ["a", "b"], INDEXED)


@pytest.mark.parametrize(
    ("source", "lacking"),
    [
        (TokenSource("model", "b"), "token '<x>'"),
        (TokenSource("model_token", "b", token="<y>"), "token '<y>'"),
        (TokenSource("model_token", "b", token_id=999), "token id 999"),
    ],
)
def test_source_that_does_not_have_the_token_is_refused(models, source, lacking):
    rule = rf"'<x>' takes its row from b, which has no {lacking} in its \d+ rows"
    with pytest.raises(ParameterError, match=rule):
        Case(models, TokenizerSetting("union", (("<x>", source),)))


def unigram(texts, extra=()):
    from tokenizers import Tokenizer, pre_tokenizers, trainers
    from tokenizers import models as kinds
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(kinds.Unigram())
    core.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<unk>", "<s>"]
    trainer = trainers.UnigramTrainer(
        vocab_size=50, special_tokens=special, unk_token="<unk>", show_progress=False
    )
    core.train_from_iterator(texts * 4, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>", bos_token="<s>")
    tokenizer.add_tokens([*extra])
    return tokenizer


def test_union_of_unigram_tokenizers_has_all_tokens_and_splits_text_as_before(tmp_path):
    texts = {
        "a": ["the cat sat on the mat", "then there the them"],
        "b": ["that hen ate oats", "he has a moth"],
    }
    for i, name in enumerate("ab"):
        make_model(tmp_path / name, unigram(texts[name], [f"<{name}>"]), i)
    case = Case(tmp_path, order=("a", "b"))
    before = case.tokenizer("a")
    assert set(case.made.token_ids) == case.tokens("a") | case.tokens("b")
    assert len(case.tokens("b") - case.tokens("a")) > 3
    assert before.get_vocab().items() <= case.made.token_ids.items()
    letters = [c for c in case.tokens("a") if len(c) == 1 and c.isalpha()]
    stream = random.Random(0)
    for _ in range(500):
        text = " ".join("".join(stream.choices(letters, k=6)) for _ in range(3))
        assert case.made.tokenizer.encode(text) == before.encode(text), text
    for text in [*texts["a"], "<a>the", "cat<b>mat"]:
        known = case.made.tokenizer.encode(text.replace("<b>", ""))
        assert known == before.encode(text.replace("<b>", ""))


def test_unigram_tokenizer_with_a_gap_in_its_ids_is_refused(models, tmp_path):
    root = copy(models, tmp_path, "b")
    make_model(root / "a", unigram(["the cat"], ["<x>", "<y>"]), 0)
    edit_tokens = json.loads((root / "a" / "tokenizer.json").read_text())
    start = insert_known(edit_tokens)
    with pytest.raises(CheckpointError, match=r"no token of id \d+, and a Unigram .*source: base"):
        insert(edit_tokens, {"new": None}, {"new": start + 3}, {"<x>": start}, root / "a")


def insert_known(document):
    """Return the first id beyond the entries of a document."""
    return len(document["model"]["vocab"])


def word_pieces(*pieces):
    from tokenizers import Tokenizer, pre_tokenizers
    from tokenizers import models as kinds
    from transformers import PreTrainedTokenizerFast

    vocab = {piece: i for i, piece in enumerate(dict.fromkeys(["[UNK]", *pieces]))}
    core = Tokenizer(kinds.WordPiece(vocab, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=core, unk_token="[UNK]")


def test_union_of_word_pieces_splits_text_as_before_or_is_refused(tmp_path):
    stream, taken = random.Random(1), 0
    pieces = [
        mark + "".join(word)
        for mark in ("", "##")
        for n in (1, 2, 3)
        for word in itertools.product("ab", repeat=n)
    ]
    texts = ["".join(word) for n in range(1, 7) for word in itertools.product("ab", repeat=n)]
    for i in range(40):
        folder = tmp_path / str(i)
        for j, name in enumerate("ab"):
            make_model(folder / name, word_pieces(*stream.sample(pieces, 4 - j)), j)
        try:
            case = Case(folder, order=("a", "b"))
        except CheckpointError:
            continue
        before = case.tokenizer("a")  # as it was; what was refused is counted, too
        taken += len(case.made.token_ids) > len(before)
        for text in texts:
            ids = before.encode(text)
            assert before.unk_token_id in ids or case.made.tokenizer.encode(text) == ids
    assert 3 < taken < 40


def test_unigram_tokenizer_takes_in_added_tokens(tmp_path):
    from tokenizers import Tokenizer
    from tokenizers import models as kinds
    from transformers import PreTrainedTokenizerFast

    for i, name in enumerate("ab"):
        core = Tokenizer(kinds.Unigram([("<unk>", 0.0), ("a", -1.0)], unk_id=0))
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>")
        tokenizer.add_tokens(["<x>", "<y>"][i : i + 1])
        make_model(tmp_path / name, tokenizer, i)
    made = Case(tmp_path, order=("a", "b")).made
    assert made.token_ids == {"<unk>": 0, "a": 1, "<x>": 2, "<y>": 3}


SOURCES = {
    "union": TokenizerSetting(),
    "base": TokenizerSetting("base"),
    "model": TokenizerSetting("c"),
    "padded": TokenizerSetting(pad_to_multiple_of=64),
    "tokens": TokenizerSetting(
        "union",
        (
            ("<|im_end|>", TokenSource("model", "c", force=True)),
            ("<|im_start|>", TokenSource("model_token", "b", token="the")),
            ("<|new|>", ZERO),
            ("<|other|>", TokenSource("model_token", "c", token_id=5)),
            ("Ġzebra", TokenSource("zero", force=True)),
            ("t", TokenSource("zero")),
        ),
        8,
    ),
}


@pytest.fixture
def mergekit(models, tmp_path):
    """Return the weights and the tokenizer of mergekit's own linear merge."""
    pytest.importorskip("mergekit", reason="the oracle is a development dependency")
    from mergekit.config import MergeConfiguration
    from mergekit.merge import run_merge
    from mergekit.options import MergeOptions
    from transformers import AutoTokenizer

    def run(setting, base, order):
        places = {name: str(models / name) for name in ORDER}
        data = {
            "merge_method": "linear",
            "models": [{"model": places[n], "parameters": {"weight": 1.0}} for n in order],
            "tokenizer": with_references(setting, places).plain(),
            "dtype": "float32",
        }
        if base is not None:
            data["base_model"] = places[base]
        options = MergeOptions(copy_tokenizer=False, write_model_card=False, quiet=True)
        run_merge(MergeConfiguration.model_validate(data), str(tmp_path / "out"), options)
        weights = load_file(tmp_path / "out" / "model.safetensors")
        return weights, AutoTokenizer.from_pretrained(tmp_path / "out")

    return run


@pytest.mark.parametrize(
    ("name", "base"),
    [
        (name, base)
        for name in SOURCES
        for base in ("a", "b", None)
        if (name, base) != ("base", None)
    ],
)  # mergekit's base without a base_model is whatever model stands first in a set
def test_mean_of_the_reindexed_parents_is_that_of_mergekit(mergekit, models, name, base):
    theirs, tokenizer = mergekit(SOURCES[name], base, ORDER)
    case = Case(models, SOURCES[name], base=base)
    ids = tokenizer.get_vocab()
    assert set(ids) == set(case.made.token_ids)
    parents = [case.made.reindexed(parent) for parent in ORDER]
    order = [case.made.token_ids[token] for token in ids]
    for tensor in INDEXED:
        ours = sum(parent.tensor(tensor) for parent in parents) / 3
        assert ours.shape == theirs[tensor].shape
        torch.testing.assert_close(ours[order], theirs[tensor][list(ids.values())])
        torch.testing.assert_close(ours[len(ids) :], theirs[tensor][len(ids) :])


def test_mergekit_encodes_the_bases_text_in_another_way(mergekit, models):
    _, theirs = mergekit(TokenizerSetting(), "a", ORDER)
    case = Case(models)
    assert any(theirs.tokenize(s) != case.tokenizer("a").tokenize(s) for s in SENTENCES)
