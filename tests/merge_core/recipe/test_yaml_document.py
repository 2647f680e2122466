import os
import time
from pathlib import Path

import pytest
import yaml

from merge_core.errors import DocumentError, MergeError
from merge_core.recipe import yaml_document
from merge_core.recipe.yaml_document import DEEP


def parse(text):
    return yaml_document.parse(text, "f.yaml")


def message(text):
    with pytest.raises(DocumentError, match=r"f\.yaml:\d+: ") as caught:
        parse(text)
    return str(caught.value)


def test_data_is_plain_and_every_key_path_has_its_line():
    found = parse("a:\n  b: [1, x]\nlist:\n  - k: true\n  - k: null\n")
    assert found.data == {"a": {"b": [1, "x"]}, "list": [{"k": True}, {"k": None}]}
    assert found.lines["a.b"] == 2
    assert found.lines["list[1]"] == 5
    assert found.line("list[1].k") == 5


def test_line_of_a_path_that_is_not_there_is_that_of_its_nearest_parent():
    found = parse("a: 1\nb:\n  c:\n    - d: 1\n")
    assert found.line("b.c[0].missing[3].deep") == 4
    assert found.line("b.c[9]") == 3
    assert found.line("nowhere") == 1


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("-1E+4", -1e4),
        ("+.5e3", 500.0),
        ("2.e1", 20.0),
        ("'1e-4'", "1e-4"),
        ("1e-4x", "1e-4x"),
        ("0.5", 0.5),
        ("7", 7),
        ("'12:30'", "12:30"),
        ("a/b:c", "a/b:c"),
        ("12:99", "12:99"),
        ("true", True),
        ("~", None),
    ],
)
def test_scalar_is_what_was_meant(text, value):
    read = parse(f"a: {text}").data["a"]
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize("text", ["12:30", "-1:2:3", "0:30", "190:20:30.15"])
def test_base_60_number_is_refused(text):
    rule = f"{text} is a base-60 number in YAML; quote it or write a decimal"
    assert message(f"x: 1\na:\n  - {text}\n") == f"f.yaml:3: a[0]: {rule}"


def test_repeated_key_is_refused_with_both_lines():
    text = "a: 1\nb:\n  c: 1\n  d: 2\n  c: 3\n"
    assert message(text) == "f.yaml:5: b.c: repeated key, it stands first in line 3"


def test_keys_that_differ_only_in_quotes_are_the_same_key():
    assert "f.yaml:2: a: repeated key, it stands first in line 1" in message("a: 1\n'a': 2\n")


def test_merge_keys_mean_what_they_mean_to_pyyaml():
    text = (
        "x-one: &one {a: 1, b: [1], c: 1}\nx-two: &two {<<: *one, b: 2, d: 2}\n"
        "three: {<<: [*two, {e: 5, d: 9}], a: 3}\nfour: {b: 4, <<: *one}\n'<<': 5\n"
    )
    found = parse(text)
    plain = yaml.safe_load(text)
    assert found.data == {key: plain[key] for key in ("three", "four", "<<")}  # without x-...
    assert found.data["three"] == {"a": 3, "b": 2, "c": 1, "d": 2, "e": 5}
    assert list(found.data["three"]) == list(plain["three"])
    assert (found.line("three.c"), found.line("three.a")) == (1, 3)


def test_merged_value_that_is_no_mapping_and_key_that_is_no_text_are_refused_both_at_once():
    text = "y:\n  <<: 3\n? [1, 2]\n: z\n"
    assert message(text) == (
        "f.yaml:2: y.<<: expected a mapping or a list of mappings\n"
        "f.yaml:3: (file): keys must be plain text"
    )


def test_placeholder_of_two_braces_without_quotes_is_named_as_one():
    rule = "keys must be plain text; is {{ ... }} a placeholder that was not filled in?"
    assert message("a: 1\nb: {{ model }}\n") == f"f.yaml:2: b: {rule}"


@pytest.mark.parametrize(
    ("text", "line", "rule"),
    [
        ("a: [1", 1, "not YAML: expected ',' or ']', but got '<stream end>'"),
        ("a: 1\n\tb: 2", 2, "not YAML: found character '\\t' that cannot start any token"),
        ("a: 1\nb: *x", 2, "not YAML: found undefined alias 'x'"),
        (
            "a: \x00",
            1,
            "not YAML: unacceptable character #x0000: special characters are not allowed",
        ),
        ("", 1, "expected one YAML document, got 0"),
        ("# nothing\n", 1, "expected one YAML document, got 0"),
        ("a: 1\n---\nb: 1\n", 1, "expected one YAML document, got 2"),
        ("a: 1\nb: &x [*x]", 2, DEEP),
        ("a: 1\nb: &x {<<: *x}", 2, DEEP),
        ("a: 1\nb: " + "[" * 1000, 2, DEEP),
        ("a: &x " + "[" * 40 + "]" * 40 + "\nb: " + "[" * 40 + "*x" + "]" * 40, 1, DEEP),
    ],
)
def test_text_that_is_not_one_yaml_document_is_refused(text, line, rule):
    assert message(text) == f"f.yaml:{line}: (file): {rule}"


NINE = ",".join(["*a"] * 9)
POWERS = "\n".join(f"a{i}: &a{i} [{NINE.replace('*a', f'*a{i - 1}')}]" for i in range(1, 9))
BOMBS = {
    "aliases": f"a0: &a0 [x]\n{POWERS}\n",
    "merge keys": f"a0: &a0 {{x: 1}}\n{POWERS.replace('[', '{<<: [').replace(']', ']}')}\n",
    "long text": f"a: &a {'x' * 900_000}\nb: [{','.join(['*a'] * 1_000)}]\n",
    "long paths": "".join(f"{'  ' * i}{'k' * 200}:\n" for i in range(50))
    + "  " * 50
    + f"[{'x,' * 45_000}]\n",
    "many values": "a: [" + "x," * 250_000 + "]\n",
}


@pytest.mark.parametrize("name", BOMBS)
@pytest.mark.slow
def test_small_file_that_stands_for_much_is_refused_at_once(name):
    start = time.process_time()
    assert "has more than 50000 values" in message(BOMBS[name])
    assert time.process_time() - start < 20  # some seconds


def test_file_and_text_past_a_mebibyte_are_refused_unread(tmp_path):
    text = "a: " + "x" * 2**20
    assert message(text) == "f.yaml:1: (file): expected at most 1048576 characters, got 1048579"
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(MergeError, match=r"r\.yaml: cannot be read: expected at most 1048576 b"):
        yaml_document.read(tmp_path / "r.yaml")


def test_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "r.yaml")
    with pytest.raises(MergeError, match=r"r\.yaml: cannot be read: not a regular file"):
        yaml_document.read(tmp_path / "r.yaml")


def test_problem_is_one_line_whatever_its_key_and_value_are():
    with pytest.raises(DocumentError) as refused:
        yaml_document.parse('"a\\nb": 12:30', "r.yaml")
    assert str(refused.value).startswith("r.yaml:1: a\\nb: 12:30 is a base-60 number")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ('"x\\0y"', "has the character U+0000, which no name or text has"),
        ('"\\e[31m"', "has the character U+001B, which no name or text has"),
        ('"\\ud800"', "has the character U+D800, which no name or text has"),
        ("9" * 400, "a whole number of 1329 bits; it has 64 at most"),
        ("0x" + "f" * 5000, "a whole number of 20000 bits; it has 64 at most"),
        ("9" * 5000, "cannot be read: Exceeds the limit (4300 digits) for integer string"),
    ],
)
def test_text_and_number_that_nothing_can_hold_are_refused(text, rule):
    assert message(f"x: 1\na: {text}\n").startswith(f"f.yaml:2: a: {rule}")


def test_key_that_is_too_long_or_cannot_be_printed_is_refused():
    assert (
        message("k" * 300 + ": 1\n")
        == "f.yaml:1: (file): a key has at most 256 characters, got 300"
    )
    assert "has the character U+001B" in message('"\\e": 1\n')


def test_number_of_a_hundred_thousand_digits_is_read_at_once():
    start = time.process_time()
    assert parse(f"a: {'1' * 100_000}.0\n").data == {"a": float("inf")}
    assert time.process_time() - start < 5  # it was minutes


def test_more_than_a_thousand_documents_are_refused():
    with pytest.raises(DocumentError, match=r"f.yaml:\d+: \(file\): has more than 1000 documents"):
        yaml_document.parse_all("---\na: 1\n" * 1001, "f.yaml")


def test_line_breaks_and_tabs_are_text():
    assert parse('a: "1\\n\\t2\\r\\n"\n').data == {"a": "1\n\t2\r\n"}


def test_of_many_problems_the_first_hundred_are_listed():
    lines = message("a: 12:30\n" + "".join(f"b{i}: 1:1\n" for i in range(149))).splitlines()
    assert len(lines) == 101
    assert lines[0].startswith("f.yaml:1: a: ")
    assert lines[-1] == "f.yaml: and 50 more"


@pytest.mark.parametrize(
    "text", ["!!python/object:os.system x", "2001-99-01", "!!int x", "!!bool x"]
)
def test_scalar_that_cannot_be_read_is_a_problem_not_a_crash(text):
    assert message(f"x: 1\na: {text}").startswith("f.yaml:2: a: cannot be read: ")


def test_alias_is_the_value_it_stands_for():
    assert parse("a: &x [1, 2]\nb: *x\n").data == {"a": [1, 2], "b": [1, 2]}


def test_fail_names_each_problem_once_and_nothing_without_problems():
    found = parse("a: 1\nb: 2\n")
    found.fail([])
    with pytest.raises(DocumentError, match=r"^f\.yaml:2: b: bad$"):
        found.fail([("b", "bad"), ("b", "bad")])


@pytest.mark.parametrize("make", ["missing", "folder", "latin-1"])
def test_file_that_cannot_be_read_is_named(tmp_path, make):
    path = tmp_path / "r.yaml"
    if make == "folder":
        path.mkdir()
    if make == "latin-1":
        path.write_bytes("a: \u00e4".encode("latin-1"))
    with pytest.raises(MergeError, match=r"r\.yaml: cannot be read: "):
        yaml_document.read(path)


def test_file_is_named_as_it_was_given(tmp_path, monkeypatch):
    (tmp_path / "r.yaml").write_text("\ufeffa: \u00e4\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    found = yaml_document.read(Path("r.yaml"))
    assert (found.file, found.data) == ("r.yaml", {"a": "\u00e4"})


@pytest.mark.parametrize(
    "text", ["9" * 200_000, "1" * 100_000 + "e", "1:" * 50_000, "." + "1" * 99_999]
)
def test_long_number_is_read_in_linear_time(text):
    start = time.process_time()
    with pytest.raises(DocumentError):
        yaml_document.parse(f"a: {text}\nb: [", "r.yaml")
    assert time.process_time() - start < 10
    assert yaml_document.EXPONENT.fullmatch(text) is None
    assert yaml_document.SEXAGESIMAL.fullmatch(text) is None
    assert time.process_time() - start < 10
