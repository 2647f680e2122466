import pytest

from merge_core.recipe.model_reference import Reference, parse


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a/b", ("a/b",)),
        ("a/b@v1", ("a/b", "v1")),
        ("a/b+c/d", ("a/b", None, "c/d")),
        ("./x@v1+../y@v2", ("./x", "v1", "../y", "v2")),
    ],
)
def test_short_form_is_read_and_written(text, parts):
    assert parse(text) == Reference(*parts)
    assert str(Reference(*parts)) == text


@pytest.mark.parametrize("parts", [("a@b",), ("a", None, "c+d"), ("a+b", None, "c@d", "e")])
def test_paths_with_signs_in_them_are_read_from_their_mapping_form(parts):
    text = str(Reference(*parts))
    assert text.startswith("{")
    assert parse(text) == Reference(*parts)
