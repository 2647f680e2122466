import pytest

from merge_core.errors import ParameterError
from merge_core.recipe.model_reference import Reference, parse, rule_broken_by


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


@pytest.mark.parametrize(
    "text",
    [
        "{",
        '{"a": 1}',
        '{"model": 1}',
        '{"model": {"path": ""}}',
        '{"model": {"path": "a", "rev": "b"}}',
        '{"model": {"path": "a"}, "lora": null}',
        '{"model": ' * 9_999,
    ],
)
def test_text_that_begins_with_a_brace_and_is_no_mapping_form_is_refused(text):
    with pytest.raises(
        ParameterError, match=r"^model '.*a name that begins with \{ is the JSON of"
    ):
        parse(text)
    assert "a name that begins with {" in rule_broken_by(text) or "{{" in text


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("{MODEL_A}", "{MODEL_A}"),
        ("{{ base }}", "{{ base }}"),
        ("org/{{model}}-7b", "{{model}}"),
        ("./{{ model }}", "{{ model }}"),
        ("org/{name}", "{name}"),
        ("{}", "{}"),
        ("a+{lora}", "{lora}"),
        ("${BASE}/x", "${BASE}"),
        ("{% if x %}a{% endif %}", "{% if x %}"),
        ("%(model)s", "%(model)s"),
        ("<your-model>", "<your-model>"),
    ],
)
def test_placeholder_in_a_name_is_quoted_as_what_it_is(text, found):
    rule = rule_broken_by(text)
    assert rule == (
        f"expected a model, got {text!r}: {found} is a placeholder that was not filled in"
    )


@pytest.mark.parametrize("text", ["./{a}/b", "/x/${a}", "~/{b}", "a/b@v+c", "a b/%s", "a<b"])
def test_path_with_braces_and_plain_names_may_be_models(text):
    assert rule_broken_by(text) is None


def test_character_that_no_path_has_is_refused_in_every_form():
    assert rule_broken_by("a\0b") == "has the character U+0000, which no name or text has"
    assert "U+0000" in rule_broken_by(str(Reference("a@\0")))
