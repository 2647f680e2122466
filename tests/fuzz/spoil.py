"""Valid files -> files as strangers send them: values, structure, bytes, the files themselves.

Everything is drawn from one ``random.Random``: a seed, or Hypothesis, gives the same files again.
"""

from __future__ import annotations

import contextlib
import copy
import json
import os
import sqlite3
import struct
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Literal

import yaml

from tests.fuzz.nasty import BITS, CODES, NUMBERS, OTHERS, WORDS

SIZES = (0, 1, 2, 3, 7, 31, 255, 2**16, 10**6, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63, 2**64 - 1)


@dataclass(frozen=True)
class Special:
    """What lies in a file's place and is none: a link to ``target``, a pipe, a folder, nothing."""

    what: Literal["link", "fifo", "folder", "absent"]
    target: str = ""


Content = bytes | Special
Files = Mapping[str, Content]  # path below the input's folder -> what lies there


def value(random: Random) -> Any:
    """Return a value that hardly anybody expects."""
    kind = random.randrange(5)
    if kind == 0:
        return random.choice(WORDS)
    if kind == 1:
        return random.choice(NUMBERS)
    if kind == 2:
        return copy.deepcopy(random.choice(OTHERS))
    if kind == 3:
        return nested(random.choice((2, 50, 300)), random.randrange(2) == 0)
    return [random.choice(NUMBERS)] * random.choice((1, 2, 5, 1000))


def nested(depth: int, lists: bool) -> Any:
    """Return lists in lists, or mappings in mappings."""
    found: Any = 0
    for _ in range(depth):
        found = [found] if lists else {"a": found}
    return found


def tree(random: Random, data: Any, times: int | None = None) -> Any:
    """Return plain data with one to four things changed somewhere."""
    data = [copy.deepcopy(data)]  # so that the whole of it has a place, too
    for _ in range(random.choice((1, 1, 2, 4)) if times is None else times):
        owner, key = random.choice(_places(data))
        random.choice(CHANGES)(random, owner, key, data)
    return data[0]


def _places(data: Any) -> list[tuple[Any, Any]]:
    found: list[tuple[Any, Any]] = []
    waiting = [data]
    while waiting and len(found) < 3000:
        one = waiting.pop()
        pairs = list(one.items() if isinstance(one, dict) else enumerate(one))
        found += [(one, key) for key, _ in pairs]
        waiting += [member for _, member in pairs if isinstance(member, dict | list)]
    return found


def _replace(random: Random, owner: Any, key: Any, _: Any) -> None:
    owner[key] = value(random)


def _drop(random: Random, owner: Any, key: Any, whole: Any) -> None:
    if owner is not whole:
        del owner[key]


def _rename(random: Random, owner: Any, key: Any, _: Any) -> None:
    if isinstance(owner, dict):
        text = str(key)
        owner[random.choice((text.upper(), text[:-1], text + "s", random.choice(WORDS)))] = (
            owner.pop(key)
        )


def _add(random: Random, owner: Any, key: Any, _: Any) -> None:
    if isinstance(owner, dict):
        owner[random.choice((*WORDS, "<<", "__proto__", "auto_map", "extends"))] = value(random)
    else:
        owner.insert(key, value(random))


def _wrap(random: Random, owner: Any, key: Any, _: Any) -> None:
    owner[key] = random.choice(([owner[key]], {"a": owner[key]}, str(owner[key]), [owner[key]] * 3))


def _swap(random: Random, owner: Any, key: Any, whole: Any) -> None:
    other, place = random.choice(_places(whole))
    owner[key] = other[place]  # not a copy: YAML then has aliases, JSON perhaps a circle


def _near(random: Random, owner: Any, key: Any, _: Any) -> None:
    """Change a value within its type: the numbers next to it, another case, a part of a text."""
    now = owner[key]
    if isinstance(now, bool) or now is None:
        owner[key] = not now
    elif isinstance(now, int | float):
        owner[key] = random.choice(
            (now + 1, now - 1, -now, now * 2, now * 10**6, now // 2, str(now))
        )
    elif isinstance(now, str):
        owner[key] = random.choice((now.upper(), now[1:], now + random.choice(WORDS), now * 2))
    elif isinstance(now, list):
        owner[key] = random.choice((now[:-1], now * 2, now[::-1], now[:1]))


CHANGES: tuple[Callable[[Random, Any, Any, Any], None], ...] = (
    *(_replace, _replace, _replace, _drop, _drop, _rename, _add, _wrap, _swap, _near, _near),
)


def raw(random: Random, data: bytes, other: bytes = b"") -> bytes:
    """Return bytes with one to three things changed somewhere, no matter what they mean."""
    for _ in range(random.choice((1, 1, 2, 3))):
        start = random.randrange(len(data) + 1)
        end = min(len(data), start + random.choice((1, 2, 8, 40, 400)))
        data = random.choice(CUTS)(random, data[:start], data[start:end], data[end:], other)
    return data


def _noise(random: Random) -> bytes:
    return bytes(random.randrange(256) for _ in range(random.choice((1, 1, 2, 8))))


def _flipped(random: Random, part: bytes) -> bytes:
    return bytes(byte ^ (1 << random.randrange(8)) for byte in part)


CUTS: tuple[Callable[[Random, bytes, bytes, bytes, bytes], bytes], ...] = (
    lambda random, before, part, after, other: before,
    lambda random, before, part, after, other: part + after,
    lambda random, before, part, after, other: before + after,
    lambda random, before, part, after, other: before + _noise(random) + after,
    lambda random, before, part, after, other: before + _noise(random) + part + after,
    lambda random, before, part, after, other: before + part * random.choice((3, 50, 2000)) + after,
    lambda random, before, part, after, other: before + other[random.randrange(len(other) + 1) :],
    lambda random, before, part, after, other: before + _flipped(random, part) + after,
    lambda random, before, part, after, other: before + random.choice(BITS) + after,
)


def bomb(random: Random) -> str:
    """Return YAML text in which aliases double, or more, with each line."""
    wide, deep = random.choice((2, 9, 30)), random.choice((3, 9, 30, 200))
    lines = ["a0: &a0 [x]"]
    for i in range(1, deep):
        members = ", ".join([f"*a{i - 1}"] * wide)
        lines.append(f"a{i}: &a{i} " + random.choice((f"[{members}]", f"{{k: [{members}]}}")))
    return "\n".join(lines) + "\n"


def json_bytes(data: Any) -> bytes:
    """Return JSON as Python writes it: with ``NaN``, and half characters as codes."""
    try:
        return json.dumps(data).encode()
    except (RecursionError, ValueError):  # deeper, or longer, than it can write
        return b"[" * 100_000


def yaml_bytes(random: Random, data: Any) -> bytes:
    """Return YAML in one of its styles, perhaps with aliases."""
    if random.randrange(3) == 0:
        return json_bytes(data)  # which YAML is, too
    try:
        text = yaml.safe_dump(data, sort_keys=False, allow_unicode=random.randrange(2) == 0)
    except (RecursionError, ValueError, yaml.YAMLError):
        return b"a: " + b"[" * 20_000
    return text.encode("utf-8", "replace")


def json_file(random: Random, data: bytes) -> bytes:
    """Return a spoilt form of a JSON file."""
    if random.randrange(4) == 0:
        return raw(random, data, data[::-1])
    return json_bytes(tree(random, json.loads(data)))


def yaml_file(random: Random, data: bytes) -> bytes:
    """Return a spoilt form of a YAML file."""
    kind = random.randrange(10)
    if kind < 3:
        return raw(random, data, data[::-1])
    if kind == 3:
        text = bomb(random)
        return random.choice((text.encode() + data, data + text.encode(), data + b"x: *a0\n"))
    return yaml_bytes(random, tree(random, yaml.safe_load(data)))


def json_lines(random: Random, data: bytes) -> bytes:
    """Return a spoilt form of a file of JSON lines."""
    lines = data.splitlines()
    i = random.randrange(len(lines))
    if random.randrange(4) == 0:
        return raw(random, data, data[::-1])
    lines[i] = json_bytes(tree(random, json.loads(lines[i])))
    return random.choice((b"\n", b"\n", b"\r\n", b"\n\n")).join(lines)


def text(random: Random, data: bytes) -> bytes:
    """Return a spoilt form of a text."""
    if random.randrange(3):
        return raw(random, data, data[::-1])
    words = data.decode() + random.choice(WORDS)
    return words.encode(random.choice(CODES), "replace")


def binary(random: Random, data: bytes) -> bytes:
    """Return a spoilt form of any file."""
    return raw(random, data, data[::-1])


def safetensors(random: Random, data: bytes) -> bytes:
    """Return a spoilt form of a safetensors file: of its header, of its length, of its bytes."""
    size = struct.unpack("<Q", data[:8])[0]
    header, rest = json.loads(data[8 : 8 + size]), data[8 + size :]
    kind = random.randrange(5)
    if kind == 0:
        return raw(random, data, data[::-1])
    if kind == 1:
        claimed = random.choice(
            (0, 1, size - 1, size + 1, size * 2, 10**8, 2**40, 2**63, 2**64 - 1)
        )
        return struct.pack("<Q", claimed) + data[8:]
    if kind == 2:
        rest = random.choice(
            (rest[: len(rest) // 2], rest + b"\0" * 8, b"", rest[::-1], _odd(rest))
        )
    else:
        header = tree(random, header)
    written = json_bytes(header)
    return struct.pack("<Q", len(written)) + written + rest


def gguf(random: Random, data: bytes) -> bytes:
    """Return a spoilt form of a GGUF file: of its bytes, or of numbers of its header."""
    if random.randrange(3) == 0:
        return raw(random, data, data[::-1])
    found, head = bytearray(data), data.find(b"blk.1.")  # in the midst of the tensors' names
    for _ in range(random.choice((1, 1, 2, 5))):
        width, at = random.choice((1, 4, 8)), random.randrange(head)
        number = random.choice(SIZES) % 2 ** (8 * width)
        found[at : at + width] = number.to_bytes(width, "little")
    return bytes(found)


def database(random: Random, data: bytes) -> bytes:
    """Return a spoilt form of a study's database: of its bytes, or of values in its tables."""
    if random.randrange(4) == 0:
        return raw(random, data, data[::-1])
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "study.db"
        file.write_bytes(data)
        with contextlib.closing(sqlite3.connect(file)) as opened:
            for _ in range(random.choice((1, 1, 2, 4))):
                _spoil_row(random, opened)
            opened.commit()
        return file.read_bytes()


def _spoil_row(random: Random, opened: sqlite3.Connection) -> None:
    """Change one value of one row, whatever the table thinks of it; or drop the row, or a table."""
    tables = [x for (x,) in opened.execute("select name from sqlite_master where type = 'table'")]
    table = random.choice(tables)
    if random.randrange(20) == 0:
        opened.execute(f'drop table "{table}"')
        return
    rows = [x for (x,) in opened.execute(f'select rowid from "{table}"')]
    if not rows:
        return
    row = random.choice(rows)
    if random.randrange(10) == 0:
        opened.execute(f'delete from "{table}" where rowid = ?', (row,))
        return
    column = random.choice([x[1] for x in opened.execute(f'pragma table_info("{table}")')])
    ((old,),) = opened.execute(f'select "{column}" from "{table}" where rowid = ?', (row,))
    with contextlib.suppress(sqlite3.IntegrityError):  # a key that is there already
        new = (_stored(random, old), row)
        opened.execute(f'update "{table}" set "{column}" = ? where rowid = ?', new)


def _stored(random: Random, old: Any) -> Any:
    """Return another value of a column: JSON stays JSON mostly."""
    if isinstance(old, str) and random.randrange(4):
        with contextlib.suppress(ValueError):
            return json_bytes(tree(random, json.loads(old))).decode("utf-8", "replace")
    found = random.choice((*SIZES, *WORDS, None, b"\xff\x00", 0.5, float("inf")))
    if isinstance(found, str):
        return found.encode("utf-8", "replace").decode()  # SQLite keeps no halves of pairs
    return float(found) if isinstance(found, int) and abs(found) >= 2**63 else found


def _odd(data: bytes) -> bytes:
    """Return as many bytes that are NaN, or infinite, in every type."""
    return (b"\xff" * len(data))[: len(data)]


def special(random: Random, name: str) -> Special:
    """Return what may lie in place of a file."""
    end = Path(name).name
    targets = (
        end,
        "/etc/passwd",
        "/dev/zero",
        "/dev/stdin",
        "../../outside/" + end,
        "..",
        "/proc/self/mem",
    )
    return random.choice(
        (
            Special("fifo"),
            Special("folder"),
            Special("absent"),
            *(Special("link", x) for x in targets),
        )
    )


def write(files: Files, folder: Path) -> None:
    """Put files into a folder, over what lies there."""
    for name, content in files.items():
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.unlink(missing_ok=True)
        if isinstance(content, bytes):
            place.write_bytes(content)
        elif content.what == "link":
            place.symlink_to(content.target)
        elif content.what == "fifo":
            os.mkfifo(place)
        elif content.what == "folder":
            place.mkdir()
