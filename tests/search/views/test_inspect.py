import json
import sys
from dataclasses import replace
from itertools import combinations
from xml.etree import ElementTree

import pytest

from merge_core.inspect.report import Measured, Pair
from search import cli
from search.views import inspection_table
from tests.search.views.test_inspection_html import FOUND

RECIPE = """
merge_method: {method}
base_model: {root}/base
models:
  - {{model: {root}/one, parameters: {{density: 0.5, weight: 1}}}}
  - {{model: {root}/two, parameters: {{density: 0.25, weight: 1}}}}
  - {{model: {root}/three, parameters: {{density: 1, weight: 1}}}}
"""
FACTS = {
    "merge_method", "recipe_digest", "dtype", "measured_from", "models", "kept_is", "parameters",
    "parents", "memory", "total", "rows",
}  # fmt: skip


@pytest.fixture
def mergetune(monkeypatch, capsys):
    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["mergetune", *map(str, arguments)])
        code = 0
        try:
            cli.main()
        except SystemExit as ended:
            code = ended.code or 0
        return (code, *capsys.readouterr())

    return call


@pytest.fixture
def recipe(family, tmp_path):
    def get(text=RECIPE, method="ties"):
        file = tmp_path / "recipe.yaml"
        file.write_text(text.format(method=method, root=family()))
        return file

    return get


def lines_of(out, start):
    """The cells of the lines that have ``start`` in their second column."""
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in out.splitlines()]
    return [row for row in rows if len(row) > 1 and row[1] == start]


def test_table_has_every_row_with_norms_kept_shares_and_pairs(mergetune, recipe):
    code, out, err = mergetune("inspect", recipe())
    assert (code, err) == (0, "")
    assert "measured from: " in out
    for number in ("parameters: ", "in the page cache", "temporaries about"):
        assert number in out
    norms, last, pairs = lines_of(out, "self_attn.q_proj")[::4]
    assert norms[0] == "0"
    assert norms[4::4] == ["50.0 %", "25.0 %"]
    assert (last[4], last[5]) == ("100.0 %", "100.0 %")
    assert len(pairs) == 2 + 2 * 3
    assert len(lines_of(out, "whole model")) == 3


def test_table_of_drawn_entries_says_about(mergetune, recipe):
    drawn, cut = (mergetune("inspect", recipe(method=name))[1] for name in ("dare_ties", "ties"))
    assert "~kept" in drawn
    assert "its density keeps about " in drawn
    assert "~kept" not in cut
    assert "its density keeps about " not in cut


def test_numbers_of_the_whole_model_are_said_in_words(mergetune, recipe):
    _, out, _ = mergetune("inspect", recipe())
    found = json.loads(mergetune("inspect", recipe(), "--json")[1])["total"]
    for name, one in zip(("one", "two", "three"), found["models"], strict=True):
        kept = f"{one['kept']['squares']:.0%} of that, as a squared norm.\n"
        said = (
            f"{name} moved by {one['relative']:.1%} of the weights' norm; its density keeps {kept}"
        )
        assert said in out
    for pair in found["pairs"]:
        assert f"(cosine {pair['cosine']:+.2f}); of the entries that both change, signs " in out


@pytest.mark.parametrize(
    ("cosine", "signs", "said"),
    [
        (0.9, 0.1, "a and b change the weights alike (cosine +0.90); of the entries that both"),
        (0.2, 0.4, "a and b change the weights a little alike (cosine +0.20); of the entries"),
        (0.0, 0.5, "(cosine +0.00); of the entries that both change, signs differ in 50%, as by"),
        (-0.4, 0.7, "a and b work against each other (cosine -0.40); of the entries that both"),
        (
            0.0,
            None,
            "a and b change the weights in nearly independent directions (cosine +0.00); n",
        ),
    ],
)
def test_an_angle_is_said_in_words(cosine, signs, said):
    assert said in inspection_table._of_pair(Pair(("x/a", "x/b"), cosine, signs), "a and b")


def test_of_many_pairs_the_most_opposed_and_the_most_alike_are_said():
    names = [f"m{i}" for i in range(4)]
    pairs = [Pair(x, i / 10, 0.5) for i, x in enumerate(combinations(names, 2))]
    models = tuple(Measured(name, 1.0, None, None) for name in names)
    found = replace(FOUND, total=replace(FOUND.total, models=models, pairs=tuple(pairs)))
    found = replace(found, models=tuple(names))
    assert [x.split(" change")[0] for x in inspection_table._sentences(found)] == [
        "m0 and m1",
        "m2 and m3",
    ]


def test_narrow_terminal_gets_one_model_in_a_table(mergetune, recipe, monkeypatch):
    monkeypatch.setattr(inspection_table.OUT, "_width", 90)
    out = mergetune("inspect", recipe())[1]
    assert len(lines_of(out, "whole model")) == 3 + 3
    assert "…" not in out


def test_json_is_one_document_with_the_keys_that_scripts_rely_on(mergetune, recipe, family):
    code, out, _ = mergetune("inspect", recipe(), "--json")
    data = json.loads(out)
    assert code == 0
    assert set(data) == FACTS
    assert set(data["memory"]) == {"parents", "result", "temporaries"}
    assert data["measured_from"] == [f"{family()}/base"]
    row = data["rows"][1]
    assert (row["stack"], row["layer"], row["name"]) == ("model.layers", 0, "self_attn.q_proj")
    assert set(row) == {
        "stack", "layer", "name", "parameters", "measured_from", "models", "pairs"
    }  # fmt: skip
    assert set(row["models"][0]) == {"model", "norm", "relative", "kept"}
    assert set(row["models"][0]["kept"]) == {"entries", "l1", "squares"}
    assert set(row["pairs"][0]) == {"models", "cosine", "sign_disagreement"}


def test_html_is_written_beside_the_table_or_the_json(mergetune, recipe, tmp_path):
    page = tmp_path / "maps" / "page.html"
    code, out, _ = mergetune("inspect", recipe(), "--html", page, "--json")
    assert code == 0
    assert json.loads(out)["merge_method"] == "ties"
    assert len(list(ElementTree.parse(page).iter("figure"))) == 3 + 2 * 3
    first = page.read_bytes()
    assert "whole model" in mergetune("inspect", recipe(), "--html", page)[1]
    assert page.read_bytes() == first


def test_recipe_without_a_base_says_what_is_measured_from(mergetune, recipe, family):
    text = "merge_method: linear\nmodels:\n" + "".join(
        f"  - {{{{model: {{root}}/{name}, parameters: {{{{weight: 1}}}}}}}}\n"
        for name in ("two", "one")
    )
    out = mergetune("inspect", recipe(text))[1]
    assert f"measured from: {family()}/two\n" in out
    assert f"task vectors: {family()}/one\n" in out
    assert "pairs of task vectors" not in out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            ("ties", "tis"),
            "recipe.yaml:2: merge_method: no merge method 'tis', did you mean 'ties'",
        ),
        (("/three", "/four"), "four': no such folder in"),
    ],
    ids=["method", "folder"],
)
def test_bad_recipe_is_one_clear_error_and_nothing_is_written(
    mergetune, recipe, tmp_path, change, message
):
    file = recipe(RECIPE.replace("{method}", "ties").replace(*change))
    code, out, err = mergetune("inspect", file, "--html", tmp_path / "page.html")
    assert (code, out) == (1, "")
    assert message in err
    assert len(err.splitlines()) == 1
    assert [x.name for x in tmp_path.iterdir()] == ["recipe.yaml"]


def test_error_while_measuring_leaves_an_old_page_as_it_was(mergetune, recipe, tmp_path):
    page = tmp_path / "page.html"
    page.write_text("old")
    text = RECIPE.replace("density: 0.25", "density: 0.25, epsilon: 0.4")
    code, _, err = mergetune("inspect", recipe(text, method="della"), "--html", page)
    assert code == 1
    assert "density 0.25 and epsilon 0.4" in err
    assert page.read_text() == "old"


def test_folder_in_place_of_the_page_is_bad_usage(mergetune, recipe, tmp_path):
    assert mergetune("inspect", recipe(), "--html", tmp_path)[0] == 2
