import re
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from merge_core.inspect.report import Inspection, Kept, Measured, Memory, Pair, Row
from search.views.inspection_html import BLUE, DARK, RED, WHITE, Scale, page

LAYERS, MODULES, MODELS = 3, ("q", "mlp.up"), ("a/one", "a/two", "a/three")
PAIRS = (("a/one", "a/two"), ("a/one", "a/three"), ("a/two", "a/three"))


def row(layer, name, size=0.01, cosine=0.25):
    models = [
        Measured(model, 10 * size, size * (i + 1), Kept(0.5, 0.75, 0.875))
        for i, model in enumerate(MODELS)
    ]
    pairs = [Pair(models, cosine, 0.125) for models in PAIRS]
    stack = None if layer is None else "layers"
    return Row(stack, layer, name, 8, ("a/base",), tuple(models), tuple(pairs))


ROWS = (
    row(None, "embed"),
    *(row(i, name, size=0.01 * (i + 1)) for i in range(LAYERS) for name in MODULES),
    row(None, "head", cosine=None),
)
FOUND = Inspection(
    merge_method="ties",
    recipe_digest="abc",
    dtype="float32",
    measured_from=("a/base",),
    models=MODELS,
    kept_is="exact",
    parameters=64,
    parents={"a/base": 64},
    memory=Memory(1, 2, 3),
    total=row(None, "whole model"),
    rows=ROWS,
)


def maps_of(found):
    """Title -> lines of cells, of every map of a page; a page that is no XML fails here."""
    root = ElementTree.fromstring(page(found))
    return {
        figure.find("figcaption").text: [line.findall("td") for line in figure.iter("tr")][1:]
        for figure in root.iter("figure")
    }


def test_every_model_and_every_pair_has_its_maps():
    assert set(maps_of(FOUND)) == {
        *(f"{name}: relative norm" for name in ("one", "two", "three")),
        *(
            f"{pair}: {what}"
            for pair in ("one and two", "one and three", "two and three")
            for what in ("cosine", "sign disagreement")
        ),
    }


def test_every_row_has_its_cell_with_its_numbers_in_every_map():
    for lines in maps_of(FOUND).values():
        assert [len(line) for line in lines] == [1, *[len(MODULES)] * LAYERS, 1]
        told = [cell.get("title") for line in lines for cell in line]
        places = [title.partition(":")[0] for title in told]
        inside = [f"layer {i}, {name}" for i in range(LAYERS) for name in MODULES]
        assert places == ["embed", *inside, "head"]
    norms = maps_of(FOUND)["two: relative norm"]
    assert norms[2][1].get("title") == (
        "layer 1, mlp.up: relative norm 0.04, norm 0.2, "
        "kept: 0.5 of the entries, 0.75 of L1, 0.875 of the squared norm"
    )
    assert maps_of(FOUND)["one and two: sign disagreement"][1][0].get("title").endswith("0.125")


def test_rows_outside_the_layers_span_all_modules():
    first, *_, last = maps_of(FOUND)["one: relative norm"]
    assert [line[0].get("colspan") for line in (first, last)] == ["2", "2"]


def test_number_that_is_not_defined_is_hatched_and_says_so():
    lines = maps_of(FOUND)["one and two: cosine"]
    cell = lines[-1][0]
    assert cell.get("class") == "none"
    assert cell.get("title") == "head: cosine not defined"
    assert lines[0][0].get("style") == f"background:{Scale(-1, 1, (BLUE, WHITE, RED)).colour(0.25)}"


def test_module_that_a_layer_lacks_is_an_empty_cell():
    lines = maps_of(replace(FOUND, rows=ROWS[:2] + ROWS[3:]))["one: relative norm"]
    assert [cell.get("title") is None for cell in lines[1]] == [False, True]


def test_model_that_is_not_in_a_row_is_an_empty_cell():
    alone = replace(ROWS[1], models=ROWS[1].models[:1], pairs=())
    maps = maps_of(replace(FOUND, rows=(ROWS[0], alone, *ROWS[2:])))
    assert maps["one: relative norm"][1][0].get("title")
    assert maps["two: relative norm"][1][0].get("title") is None
    assert maps["one and two: cosine"][1][0].get("title") is None


def test_relative_norms_of_all_models_have_one_scale():
    cells = maps_of(FOUND)
    darkest = cells["three: relative norm"][3][0].get("style")
    assert darkest == "background:#08306b"  # 3 * 0.03 is the largest of all
    assert cells["one: relative norm"][3][0].get("style") != darkest
    assert ">0.09<" in page(FOUND)  # the legend's end


def test_names_are_escaped():
    names = ("a/one", "a/<b>\"'&amp;", "a/three")
    models = [replace(x, model=name) for x, name in zip(ROWS[1].models, names, strict=True)]
    pairs = [Pair((names[0], names[1]), 0.5, 0.5)]
    odd = replace(ROWS[1], name="<i>&", models=tuple(models), pairs=tuple(pairs))
    found = replace(
        FOUND, models=names, measured_from=("<script>",), rows=(odd,), total=replace(odd, name="x")
    )
    assert "one and <b>\"'&amp;: cosine" in maps_of(found)
    text = page(found)
    assert "<script" not in text
    assert "<b>" not in text
    assert "measured from &lt;script&gt;" in text


def test_page_needs_nothing_from_elsewhere():
    text = page(FOUND)
    assert not re.search(r"<(script|link|img|iframe)|https?:|url\(|@import", text)
    assert text.count("<html") == 1


def test_page_without_task_vectors_says_so():
    rows = tuple(replace(x, models=(), pairs=()) for x in ROWS)
    found = replace(FOUND, models=(), rows=rows, total=replace(FOUND.total, models=(), pairs=()))
    assert maps_of(found) == {}
    assert "there are no task vectors" in page(found)


def test_layers_of_several_stacks_are_named_by_their_stack():
    rows = (ROWS[1], replace(ROWS[1], stack="decoder"))
    assert "<th>decoder 0</th>" in page(replace(FOUND, rows=rows))
    assert "<th>layers 0</th>" in page(replace(FOUND, rows=rows))


@pytest.mark.parametrize(
    ("value", "colour"),
    [
        (-1, "#2166ac"),
        (0, "#f7f7f7"),
        (1, "#b2182b"),
        (7, "#b2182b"),
        (-7, "#2166ac"),
        (0.5, "#d48891"),
    ],
)
def test_colour_lies_between_those_of_its_neighbours(value, colour):
    found = Scale(-1.0, 1.0, (BLUE, WHITE, RED)).colour(value)
    pairs = zip(bytes.fromhex(found[1:]), bytes.fromhex(colour[1:]), strict=True)
    assert all(abs(a - b) <= 1 for a, b in pairs)


def test_scale_of_nothing_has_one_colour():
    assert Scale(0.0, 0.0, (WHITE, BLUE, DARK)).colour(0.0) == "#f7f7f7"
