"""A file of a user's own questions or texts -> a score entry, by the names of its keys.

What is not sure is refused, with the entries that may be meant: a study that scores the wrong key
runs as well as one that scores the right one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluators.json_rows import Row, read_rows
from evaluators.text.documents import read_documents
from merge_core.errors import EvaluationError

QUESTIONS = ("question", "prompt", "query", "problem", "instruction", "input", "q", "ctx")
ANSWERS = (
    *("answer", "gold", "answerKey", "target", "solution", "expected", "completion"),
    *("response", "output", "label", "reference", "a"),
)
CHOICES = ("choices", "options", "endings", "candidates", "answers")
RIGHT = (
    *("answer", "gold", "answerKey", "answer_idx", "answer_index", "label", "correct", "target"),
    *("correct_answer", "correct_choice", "solution", "right"),
)
CONTEXTS = ("context", "passage", "background", "premise")
TEXTS = ("text", "content", "body", "document", "story", "raw_content")
READY = ("prompt", "ctx", "input")  # whose text is asked as it stands
LONG = 200  # characters of a right answer that hardly anyone writes word for word
MOST_TOKENS = 256  # of an answer, as ``exact_match`` has it
LETTERS = tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
LETTERED = re.compile(r"(option|choice|answer|opt)?[_ ]?([a-h]|[A-H]|[0-8])")
NUMBER = re.compile(r"\s*[-+]?[0-9][0-9.,]*\s*")


@dataclass(frozen=True)
class Guess:
    """A score entry, why it is this one, and how many items it has."""

    entry: Mapping[str, Any]
    why: str
    items: int


def guess(file: Path, named: str) -> Guess:
    """Say how a file may be scored.

    Args:
        file: ``.jsonl``; texts may also be ``.txt``, ``.parquet`` or a folder of ``.txt`` files.
        named: Its path as the study file says it.

    Raises:
        EvaluationError: It cannot be read, or it is not clear what its keys are.
    """
    if file.is_dir() or file.suffix in (".txt", ".parquet"):
        return _documents(file, named)
    if file.suffix != ".jsonl":
        raise EvaluationError(
            f"{file}: expected .jsonl with one JSON object a line, or texts: .txt, .parquet or a "
            f"folder of .txt files"
        )
    rows = read_rows(file)
    keys = [key for key in rows[0].values if all(key in row.values for row in rows)]
    found = _choices(rows, keys) or _question(rows, keys) or _text(rows, keys)
    if found is None:
        raise _unclear(file, named, keys, "none of them is known as a question, choices or a text")
    if isinstance(found, str):
        raise _unclear(file, named, keys, found)
    entry, why = found
    evaluator = entry.pop("evaluator")
    return Guess({"evaluator": evaluator, "file": named, **entry}, why, len(rows))


def _documents(file: Path, named: str) -> Guess:
    """Return how texts are scored, whose key in ``.parquet`` has to be ``text``."""
    texts = read_documents(file, TEXTS[0])
    entry = {"evaluator": "bits_per_byte", "file": named}
    return Guess(entry, "texts: how likely the model finds them, in bits a byte", len(texts))


def _unclear(file: Path, named: str, keys: Sequence[str], why: str) -> EvaluationError:
    return EvaluationError(
        f"{file}: all lines have the keys {', '.join(keys) or 'none'}: {why}; rename its keys "
        f"(question and answer; question, choices and answer; text), or write the entry under "
        f"`score` yourself: {{evaluator: exact_match, file: {named}, prompt: '{{{{ KEY }}}}', "
        f"answer: KEY}}, {{evaluator: multiple_choice, file: {named}, prompt: '{{{{ KEY }}}}', "
        f"choices: KEY, gold: KEY}} or {{evaluator: bits_per_byte, file: {named}, text: KEY}}"
    )


Found = tuple[dict[str, Any], str] | str | None  # entry and reason; why it is not clear; not this


def _choices(rows: Sequence[Row], keys: Sequence[str]) -> Found:
    listed = [key for key in keys if all(_is_list_of_choices(row.values[key]) for row in rows)]
    choices: Any = next((key for key in CHOICES if key in listed), None) or _lettered(rows, keys)
    other = [key for key in listed if key not in ANSWERS]
    if choices is None and len(other) == 1 and _named(keys, RIGHT, listed):
        choices = other[0]
    if choices is None:
        wrong = [k for k in CHOICES[:2] if k in keys and isinstance(rows[0].values[k], dict)]
        return f"{wrong[0]} holds a mapping, expected a list of choices" if wrong else None
    members = [choices] if isinstance(choices, str) else choices
    others, named = [key for key in keys if key not in members], ", ".join(members)
    fits = [key for key in others if all(_is_right(row, key, members) for row in rows)]
    gold = _named(fits, RIGHT, [])
    question = _prompt(rows, others) or _only_text(rows, [key for key in others if key != gold])
    if question is None:
        return f"{named}: choices, but which key is the question is not clear"
    if gold is None:
        return (
            f"{named}: choices, but none of {', '.join(RIGHT[:6])} says in each line which is the "
            f"right one: its place from 0, its letter or its text"
        )
    entry = {"evaluator": "multiple_choice", "prompt": question[1]}
    why = f"{named}: the choices, {gold}: the right one; the likeliest choice is the answer"
    return {**entry, "choices": choices, "gold": gold}, why


def _is_list_of_choices(value: Any) -> bool:
    kinds = str | int | float
    several = isinstance(value, list) and len(value) > 1
    return several and all(isinstance(x, kinds) and not isinstance(x, bool) for x in value)


def _only_text(rows: Sequence[Row], keys: Sequence[str]) -> tuple[str, str] | None:
    """Return the one key whose values are texts, and a template that asks it; None of several."""
    texts = [key for key in keys if all(isinstance(row.values[key], str) for row in rows)]
    if len(texts) != 1 or not texts[0].isidentifier():
        return None
    return texts[0], f"{{{{ {texts[0]} }}}}\nAnswer:"


def _is_right(row: Row, key: str, members: Sequence[str]) -> bool:
    """Return whether a key can say which choice is right; numbers beside option1, option2 do not.

    There 1 would be the first one for some, the second one for ``multiple_choice``.
    """
    value, several = row.values[key], len(members) > 1
    choices = [row.values[member] for member in members] if several else row.values[members[0]]
    if isinstance(value, int) and not isinstance(value, bool):
        return 0 <= value < len(choices) and not (several and members[0].endswith("1"))
    texts = [str(choice) for choice in choices]
    return isinstance(value, str) and (value in texts or value in LETTERS[: len(choices)])


def _lettered(rows: Sequence[Row], keys: Sequence[str]) -> list[str] | None:
    """Return keys such as A, B, C, D or option1, option2 that hold one choice each."""
    stems: dict[str, list[str]] = {}
    for key in keys:
        found = LETTERED.fullmatch(key)
        if found and all(isinstance(row.values[key], str | int | float) for row in rows):
            stems.setdefault(key.removesuffix(found[2]), []).append(key)
    for stem, members in stems.items():
        ends = [member.removeprefix(stem) for member in members]
        for first in ("a", "A", "0", "1"):
            if len(ends) > 1 and ends == [chr(ord(first) + i) for i in range(len(ends))]:
                return members
    return None


def _question(rows: Sequence[Row], keys: Sequence[str]) -> Found:
    answers = [key for key in ANSWERS if key in keys]
    question = _prompt(rows, [key for key in keys if key not in answers or key in QUESTIONS])
    if question is None:
        return None
    answer = _named(answers, ANSWERS, [question[0]])
    if answer is None:
        return f"{question[0]} is a question, but none of {', '.join(ANSWERS[:6])} is there"
    golds = [x for row in rows for x in _listed(row.values[answer])]
    if not all(isinstance(x, str | int | float) and not isinstance(x, bool) for x in golds):
        return f"{answer} holds other things than texts and numbers"
    texts = [str(x) for x in golds]
    longest = max(map(len, texts), default=0)
    if longest > LONG:
        return (
            f"{answer} has up to {longest} characters, and exact_match compares the whole answer; "
            f"a judge can rate such answers, bits_per_byte their likelihood"
        )
    return _exact(question, answer, texts, longest)


def _exact(question: tuple[str, str], answer: str, texts: Sequence[str], longest: int) -> Found:
    key, prompt = question
    entry: dict[str, Any] = {"evaluator": "exact_match", "prompt": prompt, "answer": answer}
    why = f"{key} is asked, {answer} is the right answer, compared as a whole"
    if all(NUMBER.fullmatch(text) for text in texts):
        entry |= {"answer_regex": r"(-?[0-9][0-9.,]*)", "numeric": True}
        why = f"{key} is asked, {answer} is a number: the first number of an answer is compared"
    if not any("\n" in text for text in texts):
        entry["stop"] = "\n"
        why += "; an answer ends with its line"
    most = min(MOST_TOKENS, longest + 8)  # a token has at least one character
    return {**entry, "max_tokens": most}, f"{why}, after at most {most} tokens"


def _prompt(rows: Sequence[Row], keys: Sequence[str]) -> tuple[str, str] | None:
    """Return the key of the question, and a template that asks it."""
    texts = [key for key in keys if all(isinstance(row.values[key], str) for row in rows)]
    key = next((key for key in QUESTIONS if key in texts), None)
    if key is None:
        return None
    asked = f"{{{{ {key} }}}}"
    context = next((other for other in CONTEXTS if other in texts), None)
    if key == "instruction":
        more = "\n{{ input }}" if "input" in texts else ""
        return key, f"{asked}{more}\n"
    if key in READY and context is None:
        return key, asked
    before = f"{{{{ {context} }}}}\n\n" if context else ""
    return key, f"{before}Question: {asked}\nAnswer:"


def _text(rows: Sequence[Row], keys: Sequence[str]) -> Found:
    texts = [key for key in keys if all(isinstance(row.values[key], str) for row in rows)]
    named = next((key for key in TEXTS if key in texts), None)
    if named is None and len(texts) == len(keys) == 1:
        named = texts[0]
    if named is None:
        return None
    answer = _named(keys, (*ANSWERS, *RIGHT), [named])
    if answer is not None:
        return f"{named} may be a text to be likely, or a question that {answer} answers"
    why = f"{named} is a text without a question: how likely the model finds it, in bits a byte"
    return {"evaluator": "bits_per_byte", "text": named}, why


def _named(keys: Sequence[str], known: Sequence[str], taken: Sequence[Any]) -> str | None:
    return next((key for key in known if key in keys and key not in taken), None)


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
