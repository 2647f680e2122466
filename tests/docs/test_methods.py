"""The page of methods is what the methods say of themselves, and its pictures what they do."""

import re

import pytest
import torch

from dev.docs import methods, pictures
from merge_core.contract import Method

DRAWN = [m for m in methods.shipped() if isinstance(m, Method)]


def test_page_of_methods_is_current():
    assert (methods.DOCS / "methods.md").read_text(encoding="utf-8") == methods.page(), (
        "run `make pictures`"
    )


@pytest.mark.parametrize("method", DRAWN, ids=lambda m: m.name)
def test_picture_of_a_method_is_current(method):
    kept = (methods.DOCS / "pictures" / f"{method.name}.svg").read_text(encoding="utf-8")
    made = pictures.picture(method)
    number = r"-?\d+\.\d+"
    assert re.sub(number, "#", kept) == re.sub(number, "#", made), "run `make pictures`"
    for old, new in zip(re.findall(number, kept), re.findall(number, made), strict=True):
        assert float(old) == pytest.approx(float(new), abs=0.3)  # of a pixel


def test_no_picture_is_left_of_a_method_that_is_gone():
    kept = {file.stem for file in (methods.DOCS / "pictures").glob("*.svg")}
    assert kept == {m.name for m in DRAWN}


def test_vectors_of_the_pictures_are_to_each_other_what_stands_above_them():
    one, two = (x.reshape(len(pictures.GROUPS), -1) for x in pictures.task_vectors())
    agree, disagree, first, second, noise = range(len(pictures.GROUPS))
    assert ((one * two)[agree] > 0).all()
    assert ((one * two)[disagree] < 0).all()
    assert (one.abs() > 4 * two.abs())[first].all()
    assert (two.abs() > 4 * one.abs())[second].all()
    assert torch.maximum(one.abs(), two.abs())[noise].max() < 0.2
