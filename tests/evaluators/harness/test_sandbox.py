from __future__ import annotations

import importlib.util

import pytest
import yaml
from jinja2 import UndefinedError

from merge_core.errors import EvaluationError
from tests.evaluators.conftest import CHOICE

DOCS = [{"q": f"say {c}:", "a": i % 2, "choices": ["x", "y"]} for i, c in enumerate("abcdef")]
KEYS = {  # of a task -> how they are put there
    "doc_to_text": lambda code: {"doc_to_text": code},
    "doc_to_target": lambda code: {"doc_to_target": code},
    "doc_to_choice": lambda code: {"doc_to_choice": code},
    "description": lambda code: {"description": code},
    "gen_prefix": lambda code: {"gen_prefix": code},
}


@pytest.fixture
def spy(tmp_path):
    """A template that would make a file, and the file."""
    file = tmp_path / "was-here"
    run = f"os.popen('touch {file}').read()"
    return "{{ cycler.__init__.__globals__." + run + " }}", file


@pytest.mark.parametrize("key", KEYS)
def test_a_template_runs_no_code_and_the_error_names_task_and_key(key, tasks, spy):
    code, file = spy
    tasks.write("mean", DOCS, **CHOICE | KEYS[key](code))
    with pytest.raises(EvaluationError, match=rf"^lm-eval task 'mean': {key}: .* it may not run"):
        tasks.open("mean", num_fewshot=1)
    assert not file.exists()


def test_an_example_has_templates_of_its_own_that_run_no_code(tasks, spy):
    code, file = spy
    tasks.write("mean", DOCS, **CHOICE, fewshot_config={"doc_to_text": code})
    with pytest.raises(
        EvaluationError,
        match=r"^lm-eval task 'mean': doc_to_text: .* it may not run",
    ):
        tasks.open("mean", num_fewshot=1)
    assert not file.exists()


def test_a_task_written_out_in_a_study_runs_no_code(tasks, spy):
    code, file = spy
    tasks.write("kind", DOCS, **CHOICE)
    settings = yaml.safe_load((tasks.folder / "kind.yaml").read_text())
    with pytest.raises(
        EvaluationError,
        match=r"^lm-eval task 'kind': doc_to_text: .* it may not run",
    ):
        tasks.open({**settings, "doc_to_text": code})
    assert not file.exists()


def test_a_template_that_is_met_only_at_a_later_document_runs_no_code(tasks, spy):
    code, file = spy
    late = "{% if q == 'say f:' %}" + code + "{% endif %}{{ a }}"
    tasks.write("late", DOCS, **CHOICE | {"doc_to_target": late})
    with pytest.raises(
        EvaluationError,
        match=r"^lm-eval task 'late': doc_to_target: .* it may not run",
    ):
        tasks.open("late")
    assert not file.exists()


@pytest.fixture(scope="module")
def theirs():
    """lm-eval's own way to fill templates, from a copy of its module that nothing was put into."""
    import lm_eval.utils

    spec = importlib.util.spec_from_file_location("their_utils", lm_eval.utils.__file__)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.apply_template


@pytest.mark.parametrize(
    "template",
    [
        "{{ q }} and {{a}}\n",
        "{{ q | regex_replace('s(.)y', '\\\\1') | upper }}",
        "{% for c in choices %}{{ loop.index0 }}: {{ c }}\n{% endfor %}",
        "{% set n = choices | length %}{{ n + a }} {{ choices.index('y') }}",
        "{{ q.split(' ')[1].strip() }}{{ '%s!' % q }}{{ '{}?'.format(q) }}",
        "{{ choices }}{{ {'b': a}.get('b') }}{{ nested.key.deeper }}",
        "{{ missing is defined }}{{ missing | default('none') }}",
        "  {#- a comment -#}  \n {{- q -}} \n",
        "",
    ],
)
def test_what_is_rendered_is_what_lm_eval_renders(template, theirs, tasks):
    from lm_eval import utils

    tasks.open(tasks.write("any", DOCS, **CHOICE))
    doc = {"q": "say <a> & b:", "a": 1, "choices": ["x", "y"], "nested": {"key": {"deeper": 2.5}}}
    assert utils.apply_template is not theirs
    assert utils.apply_template(template, doc) == theirs(template, doc)


def test_a_name_that_a_document_lacks_is_an_error_as_in_lm_eval(theirs, tasks):
    with pytest.raises(UndefinedError, match="'missing' is undefined"):
        theirs("{{ missing }}", DOCS[0])
    tasks.write("lacks", DOCS, **CHOICE | {"doc_to_text": "{{ missing }}"})
    with pytest.raises(EvaluationError, match=r"task 'lacks': doc_to_text: .*'missing' is undef"):
        tasks.open("lacks")


LOOP = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"


@pytest.mark.parametrize("endless", [LOOP, "{{ 'x' * 10 ** 10 }}"])
def test_a_template_that_does_not_end_is_an_error(endless, tasks):
    tasks.write("mean", DOCS, **CHOICE | {"doc_to_text": endless})
    with pytest.raises(EvaluationError, match=r"^lm-eval task 'mean': doc_to_text: .* takes more"):
        tasks.open("mean")
