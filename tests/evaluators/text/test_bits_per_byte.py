from __future__ import annotations

import math
from itertools import pairwise
from typing import ClassVar

import pytest

from evaluators.testing import EvaluatorContract
from merge_core.errors import EvaluationError, NoTargetsError, ParameterError
from tests.evaluators.own_files import open_entry, score_all, scripted, write_lines

DOCS = [f"say {'abc de ' * i}{i}." for i in (1, 40, 3, 100, 7, 12)]  # up to 708 tokens, model 512


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    write_lines(folder / "held-out.jsonl", [{"text": text} for text in DOCS])
    return folder


class OnTheCorpus(EvaluatorContract):
    tolerance = 1e-4  # padding: float32 logs of size 10, divided by bytes
    entry: ClassVar[dict[str, object]]
    other: ClassVar[dict[str, object]]

    @pytest.fixture(scope="class")
    @classmethod
    def build(cls, corpus, tokenizer):
        entry = {"file": "held-out.jsonl", **cls.entry}
        return lambda: open_entry("bits_per_byte", corpus, tokenizer, **entry)

    @pytest.fixture(scope="class")
    @classmethod
    def build_other(cls, corpus, tokenizer):
        entry = {"file": "held-out.jsonl", **cls.other}
        return lambda: open_entry("bits_per_byte", corpus, tokenizer, **entry)

    @pytest.fixture(scope="class")
    @classmethod
    def live_model(cls, live):
        return live


class TestWindowsOfTheModel(OnTheCorpus):
    entry: ClassVar = {}
    other: ClassVar = {"stride": 100}


class TestSlidingWindow(OnTheCorpus):
    entry: ClassVar = {"window": 64, "stride": 16}
    other: ClassVar = {"window": 64, "stride": 32}


@pytest.fixture
def opened(tmp_path, tokenizer):
    def make(docs, **entry):
        file = write_lines(tmp_path / "held-out.jsonl", [{"text": doc} for doc in docs])
        return open_entry("bits_per_byte", tmp_path, tokenizer, file=file, **entry)

    return make


def reference(live, tokenizer, text, windows):
    """Score a text by the definition: ``windows`` are (first read, first predicted, end)."""
    import torch

    ids = [tokenizer.eos_token_id, *tokenizer(text)["input_ids"]]  # read ids[k] to predict k + 1
    nats = 0.0
    for first, start, end in windows:
        with torch.no_grad():
            logits = live.model(torch.tensor([ids[first:end]])).logits[0].double()
        logp = logits.log_softmax(-1)
        nats += sum(float(logp[k - 1 - first, ids[k]]) for k in range(start, end + 1))
    return -nats / math.log(2) / len(text.encode())


def test_a_document_has_the_bits_that_the_definition_gives(opened, live, tokenizer):
    text = DOCS[1]
    expected = reference(live, tokenizer, text, [(0, 1, len(text))])
    # float32 sums of 286 logs of size 10: relative 1e-6
    assert score_all(opened([text]), live) == pytest.approx([expected], rel=1e-5)


def test_a_long_document_is_read_in_windows_of_the_models_length(opened, live, tokenizer):
    text, n = DOCS[3], len(DOCS[3])
    assert n == 708
    windows = [(0, 1, 512), (n - 512, 513, n)]  # the last has the longer past, as in lm-eval
    expected = reference(live, tokenizer, text, windows)
    assert score_all(opened([text]), live) == pytest.approx([expected], rel=1e-5)


def test_a_sliding_window_gives_every_token_the_context_that_fits(opened, live, tokenizer):
    text = "x" * 100  # no blank to cut at, so that windows are exact
    ends = [64, 80, 96, 100]
    windows = [(0, 1, 64)] + [(e - 64, s + 1, e) for s, e in pairwise(ends)]
    expected = reference(live, tokenizer, text, windows)
    found = score_all(opened([text], window=64, stride=16), live)
    assert found == pytest.approx([expected], rel=1e-5)


def test_more_context_is_other_bits_and_enough_for_all_is_the_whole(opened, live):
    docs = [DOCS[1]]  # 286 tokens
    whole, wide, narrow = (
        score_all(opened(docs, **entry), live)[0]
        for entry in ({}, {"window": 300, "stride": 10}, {"window": 32, "stride": 32})
    )
    assert wide == pytest.approx(whole, rel=1e-6)  # one piece, by another call of the engine
    assert narrow != pytest.approx(whole, rel=1e-3)


def test_golden_bits(opened):
    # "é" and "ab" are 2 bytes each: 2 ln 2 nats are 2 bits, 1 bit a byte; 3 ln 2 are 1.5
    nats = {"é": -2 * math.log(2), "ab": -3 * math.log(2)}
    model = scripted(nats=lambda context, text: nats[text])
    assert score_all(opened(["é", "ab"]), model) == pytest.approx([1.0, 1.5])


def test_lower_is_better(opened):
    assert (opened(["x"]).unit, opened(["x"]).higher_is_better) == ("bits/byte", False)


def test_the_task_is_named_after_the_file(opened):
    assert opened(["x"]).task == "held-out"


@pytest.mark.parametrize("size", ["window", "stride"])
def test_more_than_the_model_takes_is_refused(size, opened, live):
    with pytest.raises(EvaluationError, match=f"{size} is 513, but the model takes 512 tokens"):
        score_all(opened(["x"], **{size: 513}), live)


def test_a_stride_beyond_the_window_is_refused(opened):
    with pytest.raises(ParameterError, match="stride must be at most window, 8, got 9"):
        opened(["x"], window=8, stride=9)


def test_a_stride_alone_takes_the_models_window(opened, tokenizer):
    model = scripted(nats=lambda context, text: -1.0, window=4)
    opened(["abcdefgh"], stride=2).score(model, [0])
    assert model.engine.asked == [("", "abcd"), ("bcd", "ef"), ("def", "gh")]


def test_an_empty_document_is_refused_at_opening(opened):
    with pytest.raises(EvaluationError, match=r"held-out.jsonl:2: the document is empty"):
        opened(["x", ""])


@pytest.mark.parametrize("options", [{}, {"window": 64}, {"window": 64, "stride": 20}], ids=str)
def test_loss_of_a_document_is_its_score(options, tmp_path, tokenizer, live):
    texts = ["abc", "say abc 0123: " * 50, "de f"]
    file = write_lines(tmp_path / "own.jsonl", [{"text": text} for text in texts])
    task = open_entry("bits_per_byte", tmp_path, tokenizer, file=file, **options)
    losses = live.engine.losses(task.targets(range(3)))
    assert losses == pytest.approx(score_all(task, live), rel=1e-5)


def test_targets_need_a_window_that_is_written_down(tmp_path, tokenizer):
    file = write_lines(tmp_path / "own.jsonl", [{"text": "abc"}])
    task = open_entry("bits_per_byte", tmp_path, tokenizer, file=file, stride=20)
    with pytest.raises(NoTargetsError, match="own has no gradient: `stride` needs a `window`"):
        task.targets([])


def test_documents_of_one_cluster_and_of_the_same_text_are_known(tmp_path, tokenizer):
    rows = [{"text": f"text {i}", "book": i // 2} for i in range(4)]
    file = write_lines(tmp_path / "books.jsonl", rows)
    one = open_entry("bits_per_byte", tmp_path, tokenizer, file=file, cluster="book")
    assert one.cluster_ids[0] == one.cluster_ids[1] != one.cluster_ids[2] == one.cluster_ids[3]
    assert one.clustered_by == "book"
    plain = open_entry("bits_per_byte", tmp_path, tokenizer, file=file)
    assert (plain.clusters, plain.fingerprint()) == (None, one.fingerprint())
    other = write_lines(tmp_path / "others.jsonl", rows[2:])
    again = open_entry("bits_per_byte", tmp_path, tokenizer, file=other)
    assert again.documents == plain.documents[2:]
    assert not {*again.items} & {*plain.items}
