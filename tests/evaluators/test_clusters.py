from __future__ import annotations

import random

import pytest

from evaluators.clusters import content, united


def test_items_that_a_chain_of_labels_joins_are_one_group():
    assert united("abcd", "wxxy") == ("a", "b", "b", "d")
    assert united("abab", "wxyw") == ("a", "a", "a", "a")
    assert united("abc", "xyz", "uuv") == ("a", "a", "c")


def test_a_label_of_one_listing_is_not_that_of_another():
    assert united("ab", "bc") == ("a", "b")


def test_groups_do_not_depend_on_the_order_of_items():
    random.seed(0)
    items = [(random.randrange(30), random.randrange(30)) for _ in range(25)]
    found = dict(zip(items, united(*zip(*items, strict=True)), strict=True))
    for _ in range(5):
        random.shuffle(items)
        assert dict(zip(items, united(*zip(*items, strict=True)), strict=True)) == found


def test_groups_are_those_of_the_graph_that_shared_labels_draw():
    """Against a closure by repeated passes over all pairs."""
    random.seed(1)
    items = [(random.randrange(12), random.randrange(12)) for _ in range(14)]
    groups = [{i} for i in range(len(items))]
    pairs = [(i, j) for i in range(len(items)) for j in range(i)]
    for i, j in pairs * len(items):
        if items[i][0] == items[j][0] or items[i][1] == items[j][1]:
            both = groups[i] | groups[j]
            for k in both:
                groups[k] = both
    found = united(*zip(*items, strict=True))
    for label, group in zip(found, groups, strict=True):
        assert {j for j, other in enumerate(found) if other == label} == group


def test_nothing_has_no_groups_and_uneven_listings_are_refused():
    assert united([]) == united([], []) == ()
    with pytest.raises(ValueError, match="shorter"):
        united("ab", "x")


def test_twins_have_one_content():
    assert content("ab12") == content("ab12#2") == content("ab12#13") == "ab12"
