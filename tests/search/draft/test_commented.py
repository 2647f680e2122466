import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from merge_core.errors import join
from merge_core.recipe.yaml_document import parse
from search.draft.commented import commented

TEXTS = st.text(st.characters(exclude_categories=("Cs",)), max_size=30)
NUMBERS = st.integers(-(2**40), 2**40) | st.floats(allow_nan=False, allow_infinity=False)
SCALARS = st.none() | st.booleans() | NUMBERS | TEXTS
KEYS = st.text("abcdefgh_", min_size=1, max_size=8)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(KEYS, inner, max_size=4)
        | st.lists(st.dictionaries(KEYS, inner, min_size=1, max_size=3), max_size=3)
    ),
    max_leaves=20,
)


def key_paths(data, path=""):
    named = data.items() if isinstance(data, dict) else enumerate(data)
    for key, value in named:
        yield join(path, key)
        if isinstance(value, dict | list):
            yield from key_paths(value, join(path, key))


@settings(max_examples=40)
@given(st.dictionaries(KEYS, VALUES, min_size=1, max_size=5), TEXTS, st.randoms())
def test_whatever_is_written_with_whatever_comments_is_read_back(data, text, stream):
    places = sorted(key_paths(data))
    some = dict.fromkeys(stream.sample(places, stream.randint(0, len(places))), text)
    assert yaml.safe_load(commented(data, some, [text])) == data


def test_comments_stand_above_what_they_are_about():
    data = {"a": {"b": 1, "c": [{"d": {"low": 0.0}}, {"d": 2}]}, "e": [1, 2]}
    comments = {"a.b": "one", "a.c[0].d": "a range", "a.c[1]": "the second", "e": "two\nnumbers"}
    assert commented(data, comments, ["Above all."]).splitlines() == [
        "# Above all.",
        "a:",
        "  # one",
        "  b: 1",
        "  c:",
        "    -",
        "      # a range",
        "      d: {low: 0.0}",
        "    # the second",
        "    - {d: 2}",
        "# two numbers",
        "e: [1, 2]",
    ]


def test_no_comment_ends_before_its_line():
    for end in ("\n", "\r", "\x85", "\u2028", "\u2029", "\x00", "\u202e"):
        text = commented({"a": 1}, {"a": f"x{end}b: 2"}, [f"y{end}c: 3"])
        assert parse(text, "x.yaml").data == {"a": 1}
        assert text.isascii()


def test_names_of_other_scripts_are_written_as_they_are():
    assert commented({"a": "数学"}, {"a": "这是"}, []) == "# 这是\na: 数学\n"
