"""What is taken from a stranger's card."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from merge_core.output.model_card import code, licence

BOMB = "a: &a [x,x]\n" + "".join(
    f"{b}: &{b} [*{a},*{a},*{a},*{a}]\n" for a, b in zip("abcdefghijk", "bcdefghijkl", strict=True)
)
STATED = {
    "license: apache-2.0": "apache-2.0",
    "tags: [x]\nlicense: 'llama3.1'  # a remark\nlanguage: en": "llama3.1",
    "license:\n- mit\ntags:\n- x": "mit",
    "license:\n  other": "other",
    f"{BOMB}license: *l": None,
    f"{BOMB}license: mit": "mit",
    "license: " + "[" * 10**4: None,
    "license: " + "x" * 100: None,
    'license: "\\e[31mred"': None,
    'license: "mit\\n# Heading"': None,
    "license: '<script>alert(1)</script>'": None,
    "license: '[a](http://x)'": None,
    "license: 1": None,
    "license: {a: b}": None,
    "name: x": None,
    "xlicense: mit": None,
}


@pytest.mark.parametrize("head", STATED)
def test_licence_is_a_short_plain_name_or_not_stated(tmp_path: Path, head: str) -> None:
    (tmp_path / "README.md").write_text(f"---\n{head}\n---\ntext", encoding="utf-8")
    assert licence(tmp_path) == STATED[head]


def test_card_that_is_a_pipe_or_endless_or_no_text_states_nothing(tmp_path: Path) -> None:
    file = tmp_path / "README.md"
    os.mkfifo(file)
    assert licence(tmp_path) is None
    file.unlink()
    file.symlink_to("/dev/zero")
    assert licence(tmp_path) is None
    file.unlink()
    file.write_bytes(b"---\n\xff\xfe\x00---\n")
    assert licence(tmp_path) is None


def test_name_in_a_card_is_one_line_ofcode() -> None:
    assert code("a`b\n# c\x1b[31m") == "`a'b\ufffd# c\ufffd[31m`"
