from __future__ import annotations

import pytest

from evaluators.protocol import Item, canonical, items_of


def test_ids_do_not_depend_on_the_place():
    a, b = {"q": "1+1", "a": 2}, {"q": "1+2", "a": 3}
    there, back = items_of("sums", [a, b]), items_of("sums", [b, a])
    assert there == back[::-1]


def test_ids_do_not_depend_on_the_order_of_keys():
    assert items_of("sums", [{"q": 1, "a": 2}]) == items_of("sums", [{"a": 2, "q": 1}])


def test_the_same_document_in_another_task_is_another_item():
    doc = {"q": "1+1"}
    assert items_of("sums", [doc])[0].id != items_of("quiz", [doc])[0].id


def test_twins_are_numbered_and_share_their_content():
    items = items_of("sums", [{"q": 1}, {"q": 2}, {"q": 1}, {"q": 1}])
    first = items[0].id
    assert [items[2].id, items[3].id] == [f"{first}#2", f"{first}#3"]
    assert {items[i].content for i in (0, 2, 3)} == {first}
    assert items[1].content != first


def test_golden_id():
    # sha256(b'["sums",{"a":2,"q":"1+1"}]'), by `printf ... | sha256sum`.
    assert items_of("sums", [{"q": "1+1", "a": 2}]) == (Item("649200d60d6733f8", "sums"),)


@pytest.mark.parametrize("text", ["é", "\ud800", "日本"])
def test_any_text_has_an_id(text):
    assert len(items_of("texts", [{"q": text}])[0].id) == 16


def test_canonical_text_has_sorted_keys_and_no_spaces():
    assert canonical({"b": [1, None], "a": "é"}) == '{"a":"é","b":[1,null]}'.encode()
