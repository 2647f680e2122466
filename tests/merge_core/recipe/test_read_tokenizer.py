import subprocess
import sys

import pytest
import yaml

from merge_core.recipe.read_fields import Node
from merge_core.recipe.read_tokenizer import chat_template, tokenizer
from merge_core.recipe.tokenizer_schema import TEMPLATES, TokenizerSetting, TokenSource

BLOCK = """
source: union
tokens:
  <|im_start|>: {source: {kind: model_token, model: chat, token: <|start|>}}
  <|im_end|>: {source: {kind: model_token, model: chat, token_id: 7}, force: true}
  <new>: {source: {kind: zero}}
  <s>: {source: one, force: false}
pad_to_multiple_of: 64
"""
READ = TokenizerSetting(
    "union",
    (
        ("<new>", TokenSource("zero")),
        ("<s>", TokenSource("model", "one")),
        ("<|im_end|>", TokenSource("model_token", "chat", token_id=7, force=True)),
        ("<|im_start|>", TokenSource("model_token", "chat", token="<|start|>")),
    ),
    64,
)


def read(data):
    problems = []
    return tokenizer(Node({"tokenizer": data}, "", problems)), problems


def test_block_is_read_with_its_tokens_sorted():
    assert read(yaml.safe_load(BLOCK)) == (READ, [])


def test_plain_data_is_read_back_as_the_same_setting():
    assert read(READ.plain()) == (READ, [])
    assert TokenizerSetting("base").plain() == {"source": "base"}


def test_plain_data_is_what_mergekit_reads():
    config = pytest.importorskip("mergekit.tokenizer.config", reason="the oracle")
    theirs = config.TokenizerConfig.model_validate(READ.plain())
    tokens = theirs.tokens
    assert (theirs.source, theirs.pad_to_multiple_of) == ("union", 64)
    assert (tokens["<|im_end|>"].source.token_id, tokens["<|im_end|>"].force) == (7, True)
    assert tokens["<|im_start|>"].source.token == "<|start|>"
    assert tokens["<new>"].source.kind == "zero"
    assert str(tokens["<s>"].source) == "one"


def test_empty_block_is_a_union():
    assert read({}) == (TokenizerSetting("union"), [])
    assert read({"tokens": None}) == (TokenizerSetting("union"), [])


def test_short_form_is_the_block_with_nothing_but_a_source():
    problems = []
    assert tokenizer(Node({"tokenizer_source": "base"}, "", problems)) == TokenizerSetting("base")
    assert not problems


@pytest.mark.parametrize(("data", "got"), [(3, "3"), ("", "''"), ([], "a list")])
def test_short_form_that_is_no_name_is_a_problem(data, got):
    problems = []
    assert tokenizer(Node({"tokenizer_source": data}, "", problems)) is None
    assert problems == [("tokenizer_source", f"expected a model, got {got}")]


T = "tokenizer.tokens.x"
KIND = "expected model_token or zero"
CASES = {
    "list": ([], "tokenizer: expected {source, tokens, pad_to_multiple_of}, got a list"),
    "unknown key": ({"sorce": "a"}, "tokenizer.sorce: unknown key, did you mean 'source'?"),
    "source that is a number": ({"source": 3}, "tokenizer.source: expected a model, got 3"),
    "padding of zero": (
        {"pad_to_multiple_of": 0},
        "tokenizer.pad_to_multiple_of: expected a whole number from 1 to 65536, got 0",
    ),
    "padding that no memory holds": (
        {"pad_to_multiple_of": 10**18},
        "tokenizer.pad_to_multiple_of: expected a whole number from 1 to 65536, got 1" + "0" * 18,
    ),
    "padding that is a flag": (
        {"pad_to_multiple_of": True},
        "tokenizer.pad_to_multiple_of: expected a whole number from 1 to 65536, got true",
    ),
    "tokens that are a list": (
        {"tokens": ["x"]},
        "tokenizer.tokens: expected tokens (a mapping), got a list",
    ),
    "token without a name": (
        {"tokens": {"": {"source": "a"}}},
        "tokenizer.tokens.: expected the text of a token, got ''",
    ),
    "token that is text": ({"tokens": {"x": "a"}}, f"{T}: expected {{source, force}}, got 'a'"),
    "token without a source": ({"tokens": {"x": {"force": True}}}, f"{T}.source: required"),
    "unknown key of a token": (
        {"tokens": {"x": {"source": "a", "froce": True}}},
        f"{T}.froce: unknown key, did you mean 'force'?",
    ),
    "force that is no flag": (
        {"tokens": {"x": {"source": "a", "force": 2}}},
        f"{T}.force: expected true or false, got 2",
    ),
    "source that is nothing": (
        {"tokens": {"x": {"source": None}}},
        f"{T}.source: required",
    ),
    "kind that is none": (
        {"tokens": {"x": {"source": {"kind": "model_tokn"}}}},
        f"{T}.source.kind: {KIND}, got 'model_tokn', did you mean 'model_token'?",
    ),
    "kind that is a number": (
        {"tokens": {"x": {"source": {"kind": 3}}}},
        f"{T}.source.kind: {KIND}, got 3",
    ),
    "no kind": (
        {"tokens": {"x": {"source": {}}}},
        f"{T}.source.kind: {KIND}, got nothing",
    ),
    "model_token without a model": (
        {"tokens": {"x": {"source": {"kind": "model_token", "token": "y"}}}},
        f"{T}.source.model: expected a model, got nothing",
    ),
    "model_token without a token": (
        {"tokens": {"x": {"source": {"kind": "model_token", "model": "a"}}}},
        f"{T}.source: expected one of token and token_id",
    ),
    "model_token with two": (
        {
            "tokens": {
                "x": {
                    "source": {"kind": "model_token", "model": "a", "token": "y"} | {"token_id": 1}
                }
            }
        },
        f"{T}.source: expected one of token and token_id",
    ),
    "token that is a number": (
        {"tokens": {"x": {"source": {"kind": "model_token", "model": "a", "token": 3}}}},
        f"{T}.source.token: expected the text of a token, got 3",
    ),
    "negative id": (
        {"tokens": {"x": {"source": {"kind": "model_token", "model": "a", "token_id": -1}}}},
        f"{T}.source.token_id: expected a whole number from 0 on, got -1",
    ),
    "misspelt key of a model_token": (
        {
            "tokens": {
                "x": {"source": {"kind": "model_token", "model": "a", "token": "y", "tokn": 1}}
            }
        },
        f"{T}.source.tokn: unknown key, did you mean 'token'?",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_problem_is_answered_with_path_rule_and_value(name):
    data, expected = CASES[name]
    setting, problems = read(data)
    assert setting is None
    assert [": ".join(problem) for problem in problems] == [expected]


def test_model_of_a_row_of_zeros_is_a_notice():
    problems, notices = [], []
    data = {"tokens": {"x": {"source": {"kind": "zero", "model": "a"}, "force": 1}}}
    found = tokenizer(Node({"tokenizer": data}, "", problems, notices))
    assert found == TokenizerSetting(tokens=(("x", TokenSource("zero", force=True)),))
    assert problems == []
    assert [path for path, _ in notices] == [f"{T}.source.model"]


def test_all_problems_come_at_once():
    _, problems = read({"source": 3, "tokens": {"x": {}, "y": 1}, "pad_to_multiple_of": "x"})
    assert [path for path, _ in problems] == [
        "tokenizer.source",
        "tokenizer.tokens.x.source",
        "tokenizer.tokens.y",
        "tokenizer.pad_to_multiple_of",
    ]


@pytest.mark.parametrize("data", ["auto", *TEMPLATES, "{{ bos_token }}"])
def test_setting_of_the_three_kinds_is_read(data):
    problems = []
    assert chat_template(Node({"chat_template": data}, "", problems)) == data
    assert not problems


@pytest.mark.parametrize(
    ("data", "got"),
    [
        (3, "3"),
        ("", "''"),
        (None, "nothing"),
        ("chatmk", "'chatmk', did you mean 'chatml'?"),
        ("plain text", "'plain text'"),
    ],
)
def test_other_setting_is_a_problem(data, got):
    problems = []
    assert chat_template(Node({"chat_template": data}, "r", problems)) is None
    expected = "auto, alpaca, chatml, exaone, llama3, mistral, or Jinja text"
    assert problems == [("r.chat_template", f"expected {expected}, got {got}")]


def test_reading_imports_no_heavy_package():
    code = (
        "import sys; from merge_core.tokenizer import chat_template, parent_tokenizer, vocabulary;"
        "from merge_core.recipe import read;"
        "read.parse({'chat_template': 'chatml', 'tokenizer': {}}, '', []);"
        "print(sorted({'torch', 'transformers', 'tokenizers', 'jinja2'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
