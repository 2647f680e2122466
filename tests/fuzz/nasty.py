"""Values, texts and bytes that hardly anybody expects."""

from __future__ import annotations

WORDS = (
    *("", " ", "x", "\x00", "a\x00b", "\x1b[2J\x1b[31mred", "\u202eabc", "\ufeff", "e\u0301", "🙂"),
    *(
        "..",
        "../..",
        "../../../etc/passwd",
        "/etc/passwd",
        "/dev/zero",
        "/proc/self/mem",
        "~",
        "~nobody/x",
    ),
    *(
        "true",
        "null",
        "NaN",
        "1e-4",
        "12:30",
        "0x10",
        "{",
        '{"a": 1}',
        "{{ 1",
        "{% for %}",
        "[bold]",
        "%s%n",
    ),
    *(
        "(a+)+$",
        "(?P<n>",
        "*",
        "file:///etc/passwd",
        "C:\\x",
        "a/b/c/d",
        "one+two",
        "one@main",
        "!function x.y",
    ),
    *("x" * 300, "x" * 70_000, "a\nb", "- a: [", "\ud800"),
)
NUMBERS = (
    *(0, -1, 1, 2, 3, 7, 2**31, 2**63, 2**64, 10**30, -(10**30), 10**400, 10**9, 10**6),
    *(0.5, -0.0, 1e308, 1e-320, float("nan"), float("inf"), float("-inf")),
)
OTHERS = (None, True, False, [], {}, [[]], [None], {"": None}, [0, "a", None], {"a": {"b": [1]}})
CODES = ("utf-8", "utf-16", "utf-32", "latin-1", "utf-8-sig")
BITS = (
    *(
        b"\x00",
        b"\xff\xfe",
        b"\xef\xbb\xbf",
        b"\r\n",
        b"\t",
        b"'",
        b'"',
        b"{",
        b"[",
        b"]",
        b"}",
        b":",
        b",",
    ),
    *(
        b"&a ",
        b"*a",
        b"<<: ",
        b"!!python/object/apply:os.getcwd []",
        b"!!binary x",
        b"!!timestamp x",
        b"!!set ",
    ),
    *(
        b"---\n",
        b"...\n",
        b"? ",
        b"| ",
        b"> ",
        b"%YAML 9\n",
        b"[" * 5000,
        b"{a: " * 2000,
        b'{"a":' * 3000,
    ),
    *(
        b"9" * 5000,
        b"1e999",
        b"-Infinity",
        b"NaN",
        b"\\ud800",
        b"\\u0000",
        b"{{ ",
        b"}}",
        b"{% ",
        b"\x1b[31m",
    ),
)
