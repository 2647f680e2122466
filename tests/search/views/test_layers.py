import re
from xml.etree import ElementTree

from evaluators.engines.hf.residual_stream import LayerDistances
from search.run.inspect_layers import LayersFound
from search.views import layers_html, layers_table

ONE = LayerDistances(
    texts=2,
    tokens=40,
    influence=(0.5, 0.25, 0.125, 0.0625, 0.5, 0.5, 0.5, 0.5),
    angular=tuple(
        tuple(0.01 * n + (0.0 if i == 8 - n - 1 else 0.1) for i in range(8 - n + 1))
        for n in range(1, 9)
    ),
)
SMALL = LayerDistances(1, 3, (0.5,), ((0.5,),))


def test_sentence_names_a_quarter_of_the_layers():
    assert ONE.best(2) == 5
    assert layers_table.sentence("m", ONE) == (
        "m: of all blocks of 2, dropping layers 5 to 6 changes the stream least "
        "(angular distance 0.0200)"
    )


def test_model_of_one_layer_has_no_block_to_cut(capsys):
    layers_table.show(LayersFound("texts", {"m": SMALL}))
    out = capsys.readouterr().out
    assert "blocks to cut" not in out
    assert "changes the stream" not in out
    layers_table.show(LayersFound("texts", {"m": ONE}))
    assert "blocks to cut" in capsys.readouterr().out


def test_page_has_a_cell_for_every_block_and_frames_the_least_of_each_size():
    page = layers_html.page(LayersFound("texts", {"m": ONE, "n": SMALL}))
    first, second = ElementTree.fromstring(page).findall(".//figure")
    rows = first.findall(".//tbody/tr")
    told = [[cell.get("title") for cell in row.findall("td") if cell.get("title")] for row in rows]
    assert [len(cells) for cells in told] == [8, 7, 6, 5, 4, 3, 2, 1, 8]
    assert told[1][5] == "layers 5 to 6: 0.02"
    framed = [x.get("title") for x in rows[1].findall("td") if "outline" in (x.get("style") or "")]
    assert framed == ["layers 5 to 6: 0.02"]
    assert told[-1][1] == "layer 1: block influence 0.25"
    assert len(second.findall(".//tbody/tr")) == 2


def test_names_are_escaped_and_the_page_needs_nothing_from_elsewhere():
    page = layers_html.page(LayersFound("<script>", {"<b>&": ONE}))
    assert ElementTree.fromstring(page).find(".//figcaption").text == "<b>&"
    assert "<script" not in page
    assert not re.search(r"<(link|img|iframe)|https?:|url\(|@import", page)
