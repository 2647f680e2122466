from __future__ import annotations

import pytest

from evaluators.cluster_keys import clusters_of
from merge_core.errors import EvaluationError

LONG = "Once upon a time there was a little girl."
OTHER = "And there was a wolf who lived in the forest."


def found(documents, key=None, source=""):
    return clusters_of(documents, key, source=source, place=lambda i: f"row {i}")


def groups(documents, key=None):
    """Return the key, and numbers in place of labels."""
    clusters = found(documents, key)
    if clusters is None:
        return None
    order = list(dict.fromkeys(clusters.labels))
    return clusters.key, [order.index(label) for label in clusters.labels]


@pytest.mark.parametrize(
    "documents",
    [  # with the fields that they have in lm-eval
        [
            {"passage": LONG, "question": q, "idx": i, "label": 1} for i, q in enumerate("ab")
        ],  # boolq
        [{"paragraph": LONG, "question": "q", "answer": a, "idx": {"answer": a}} for a in "ab"],
        [{"id": q, "title": "t", "context": LONG, "question": q} for q in "ab"],  # squad
        [{"query_id": q, "section_id": "s", "passage": LONG, "question": q} for q in "ab"],  # drop
        [{"article": LONG, "problems": q} for q in "ab"],  # race
        [{"narrative": LONG, "question": q} for q in "ab"],  # musr
        [{"premise": LONG, "hypothesis": q} for q in "ab"],  # xnli
        [{"flores_passage": LONG, "question_number": q} for q in "ab"],  # belebele
        [{"document_str": LONG, "question_str": q} for q in "ab"],  # qa4mre
        [{"dialogue": [LONG[:20], LONG[20:]], "question": q} for q in "ab"],  # dream
        [{"Passage": LONG, "question": q} for q in "ab"],
    ],
)
def test_a_text_that_documents_share_is_found(documents):
    alone = [dict.fromkeys(documents[0], OTHER)]
    key, numbers = groups([*documents, *alone])
    assert key in documents[0]
    assert numbers == [0, 0, 1]


def test_an_id_that_some_documents_share_is_found():
    """As in hellaswag, whose contexts are of videos and articles."""
    documents = [{"ctx": f"{i}", "source_id": f"v{max(i, 1)}"} for i in range(20)]
    assert groups(documents) == ("source_id", [0, 0, *range(1, 19)])


@pytest.mark.parametrize(
    "documents",
    [
        [{"question": LONG, "answer": a} for a in "ab"],  # no key of a passage
        [{"passage": f"{LONG} {i}", "question": "q"} for i in range(3)],  # one question each
        [{"context": "geography", "question": q} for q in "ab"],  # a category
        [{"context": "", "question": q} for q in "ab"],
        [{"context": None, "question": q} for q in "ab"],
        [{"passage": LONG, "question": "q"}] * 2,  # twins, which are one cluster anyway
        [{"source_id": "web", "question": f"{i}"} for i in range(50)],  # not of a passage
        ["a text", 5, None],
        [],
    ],
)
def test_nothing_is_found_where_nothing_is_shared(documents):
    assert found(documents) is None


def test_a_document_without_a_text_is_alone():
    documents = [
        {"passage": LONG, "q": 1},
        {"q": 2},
        {"passage": "", "q": 3},
        {"passage": LONG, "q": 4},
        {"passage": "", "q": 5},
    ]
    assert groups(documents) == ("passage", [0, 1, 2, 0, 3])


def test_a_named_key_counts_whatever_it_holds():
    documents = [{"topic": "a", "passage": LONG, "q": q} for q in range(3)] + [{"topic": 1}]
    assert groups(documents, "topic") == ("topic", [0, 0, 0, 1])
    documents = [{"idx": {"paragraph": p, "question": q}} for p in (1, 2) for q in (1, 2)]
    assert groups(documents, "idx.paragraph") == ("idx.paragraph", [0, 0, 1, 1])
    assert groups([{"a.b": 1}, {"a.b": 2}], "a.b") == ("a.b", [0, 1])
    assert groups([{"turns": [1, 2]}, {"turns": [1, 2], "q": 1}], "turns") == ("turns", [0, 0])


def test_a_named_key_that_says_nothing_leaves_its_document_alone():
    assert groups([{"p": None, "q": 1}, {"p": None, "q": 2}], "p") == ("p", [0, 1])


def test_none_says_that_nothing_belongs_together():
    documents = [{"passage": LONG, "q": q} for q in "ab"]
    assert found(documents, "none") is None
    assert groups([{"none": 1, "q": q} for q in "ab"], "none") == ("none", [0, 0])


@pytest.mark.parametrize(
    ("document", "key", "rule"),
    [
        ({"passage": LONG}, "pasage", "no key 'pasage', did you mean 'passage'"),
        ({"idx": {"paragraph": 1}}, "idx.paragaph", "no key 'paragaph', did you mean 'paragraph'"),
        ({"idx": 1}, "idx.paragraph", "no key 'paragraph'; there are no keys"),
        (5, "id", "no key 'id'; there are no keys"),
    ],
)
def test_a_document_without_the_named_key_is_refused_with_its_place(document, key, rule):
    with pytest.raises(EvaluationError, match=f"^row 1: cluster: {rule}"):
        found([{key: 1, "idx": {"paragraph": 1, "paragaph": 2}}, document], key)


def test_a_text_is_the_same_everywhere_and_an_id_only_in_its_source():
    texts = [{"passage": LONG, "q": q} for q in range(40)]
    spaced = [{"context": f"{LONG}\n", "q": q} for q in range(40)]
    assert {*found(texts, source="a").labels} == {*found(spaced, source="b").labels}
    ids = [{"story_id": q // 2, "q": q} for q in range(40)]
    assert not {*found(ids, source="a").labels} & {*found(ids, source="b").labels}
    assert {*found(ids, source="a").labels} == {*found(ids, source="a").labels}
