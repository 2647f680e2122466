import json
from importlib.resources import files

import pytest

from merge_core.errors import CheckpointError, ParameterError
from merge_core.parents.open import open_parents
from merge_core.recipe.tokenizer_schema import TEMPLATES
from merge_core.tokenizer import chat_template as module
from merge_core.tokenizer.chat_template import chat_template

SYSTEM = {"role": "system", "content": "Be brief."}
USER = {"role": "user", "content": "Hi!"}
ASSISTANT = {"role": "assistant", "content": "Hello."}
AGAIN = {"role": "user", "content": "Bye!"}

# Written out by hand from the makers' format descriptions. Where mergekit 0.1.5 differs: its llama3
# has a line feed after every <|eot_id|>, its exaone the template's own indentation in the text, its
# alpaca no empty line before the last "### Response:".
WHOLE = {
    "chatml": (
        "<|im_start|>system\nBe brief.<|im_end|>\n"
        "<|im_start|>user\nHi!<|im_end|>\n"
        "<|im_start|>assistant\nHello.<|im_end|>\n"
    ),
    "llama3": (
        "<s><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nHi!<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nHello.<|eot_id|>"
    ),
    "mistral": "<s> [INST] Be brief.\n\nHi! [/INST] Hello.</s>",
    "alpaca": "Be brief.\n\n### Instruction:\nHi!\n\n### Response:\nHello.\n\n",
    "exaone": ("[|system|]Be brief.[|endofturn|]\n[|user|]Hi!\n[|assistant|]Hello.[|endofturn|]\n"),
}
TO_ANSWER = {
    "chatml": (
        "<|im_start|>user\nHi!<|im_end|>\n"
        "<|im_start|>assistant\nHello.<|im_end|>\n"
        "<|im_start|>user\nBye!<|im_end|>\n"
        "<|im_start|>assistant\n"
    ),
    "llama3": (
        "<s><|start_header_id|>user<|end_header_id|>\n\nHi!<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nHello.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nBye!<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    ),
    "mistral": "<s> [INST] Hi! [/INST] Hello.</s> [INST] Bye! [/INST]",
    "alpaca": (
        "### Instruction:\nHi!\n\n### Response:\nHello.\n\n"
        "### Instruction:\nBye!\n\n### Response:\n"
    ),
    "exaone": (
        "[|system|][|endofturn|]\n[|user|]Hi!\n[|assistant|]Hello.[|endofturn|]\n"
        "[|user|]Bye!\n[|assistant|]"
    ),
}


def rendered(text, *conversation, answer=False):
    from transformers.utils.chat_template_utils import render_jinja_template

    (made,), _ = render_jinja_template(
        conversations=[list(conversation)],
        chat_template=text,
        add_generation_prompt=answer,
        bos_token="<s>",
        eos_token="</s>",
    )
    return made


@pytest.fixture
def parents(own_family):
    """Three parents, by name; ``give`` writes the template of one."""
    root = own_family()
    return open_parents(["one", "two", "three"], [root])


def give(parent, text):
    (parent.folder / "chat_template.jinja").write_text(text)


@pytest.mark.parametrize("name", TEMPLATES)
def test_named_format_is_the_one_written_out_by_hand(name):
    assert rendered(chat_template(name, {}, ()), SYSTEM, USER, ASSISTANT) == WHOLE[name]


@pytest.mark.parametrize("name", TEMPLATES)
def test_named_format_without_a_system_message_ends_where_the_answer_starts(name):
    text = chat_template(name, {}, ())
    assert rendered(text, USER, ASSISTANT, AGAIN, answer=True) == TO_ANSWER[name]


@pytest.mark.parametrize("name", ["alpaca", "mistral"])
def test_format_without_a_place_for_tools_refuses_them(name):
    from jinja2 import TemplateError

    with pytest.raises(TemplateError, match=f"the {name} format has no role tool"):
        rendered(chat_template(name, {}, ()), {"role": "tool", "content": "x"})


def test_every_name_has_a_file_and_every_file_a_name():
    names = sorted(file.name for file in module.FOLDER.iterdir())
    assert names == [f"{name}.jinja" for name in TEMPLATES]


def test_jinja_text_is_itself():
    text = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    assert chat_template(text, {}, ()) == text


def test_jinja_text_that_refuses_the_trial_conversation_is_taken():
    text = "{{ raise_exception('only systems') }}"
    assert chat_template(text, {}, ()) == text


def test_text_that_is_no_jinja_is_refused_with_its_line():
    with pytest.raises(ParameterError, match=r"chat_template: no valid Jinja: line 2: .*foo"):
        chat_template("{# c #}\n{% foo %}", {}, ())


def test_unknown_name_is_refused_with_a_near_one():
    with pytest.raises(ParameterError, match=r"got 'chatmk', did you mean 'chatml'\?$"):
        chat_template("chatmk", {}, ())


def test_auto_takes_the_most_frequent_template(parents):
    for name, text in (("one", "{{ 1 }}"), ("two", "{{ 2 }}"), ("three", "\n{{ 2 }}\n")):
        give(parents[name], text)
    assert chat_template("auto", parents, ["one", "two", "three"]) == "{{ 2 }}"


@pytest.mark.parametrize("order", [["one", "two"], ["two", "one"]])
def test_auto_takes_the_first_in_recipe_order_of_equally_frequent_ones(parents, order):
    give(parents["one"], "one")
    give(parents["two"], "two")
    assert chat_template("auto", parents, ["three", *order]) == order[0]


def test_auto_without_any_template_is_none(parents):
    assert chat_template("auto", parents, list(parents)) is None


@pytest.mark.parametrize(
    "given", ["here", [{"name": "rag", "template": "x"}, {"name": "default", "template": "here"}]]
)
def test_auto_reads_templates_from_the_tokenizers_config(parents, given):
    file = parents["one"].folder / "tokenizer_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "chat_template": given}))
    assert chat_template("auto", parents, ["one"]) == "here"


def test_auto_reads_what_transformers_reads(parents):
    from transformers import AutoTokenizer

    file = parents["one"].folder / "tokenizer_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "chat_template": "config"}))
    give(parents["one"], "file")
    theirs = AutoTokenizer.from_pretrained(parents["one"].folder).chat_template
    assert chat_template("auto", parents, ["one"]) == theirs == "file"


def test_template_file_that_is_no_text_is_named(parents):
    (parents["one"].folder / "chat_template.jinja").write_bytes(b"\xff")
    with pytest.raises(CheckpointError, match=r"one/chat_template\.jinja: cannot be read: "):
        chat_template("auto", parents, ["one"])


@pytest.mark.parametrize("name", ["chatml", "mistral"])
def test_named_format_renders_as_that_of_mergekit(name):
    theirs = pytest.importorskip("mergekit._data.chat_templates", reason="the oracle")
    text = (files(theirs) / f"{name}.jinja").read_text()
    conversation = (SYSTEM, USER, ASSISTANT, AGAIN)
    assert rendered(chat_template(name, {}, ()), *conversation) == rendered(text, *conversation)
