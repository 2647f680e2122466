import subprocess
import sys

import pytest

from merge_core.errors import DocumentError, MergeError
from merge_core.methods.registry import METHODS
from merge_core.recipe import read as recipe_reader
from merge_core.recipe.schema import Conditional, Source
from tests.merge_core.conftest import read_recipe
from tests.merge_core.recipes import RECIPES

MERGEKIT_README = """\
models:
  - model: mistralai/Mistral-7B-v0.1
    # no parameters necessary for base model
  - model: OpenPipe/mistral-ft-optimized-1218
    parameters:
      density: 0.5
      weight: 0.5
  - model: mlabonne/NeuralHermes-2.5-Mistral-7B
    parameters:
      density: 0.5
      weight: 0.3
merge_method: ties
base_model: mistralai/Mistral-7B-v0.1
parameters:
  normalize: true
dtype: float16
"""


def ties(weight="0.5", more=""):
    """A recipe whose line 7 is the weight of ``one``."""
    return f"""\
merge_method: ties
base_model: base
models:
  - model: base
  - model: one
    parameters:
      weight: {weight}
{more}"""


def sliced(sources, more=""):
    """A linear recipe of one slice, whose sources are line 3."""
    return (
        f"merge_method: linear\nslices:\n  - sources: {sources}\n{more}parameters: {{weight: 1}}\n"
    )


KNOWN = ", ".join(METHODS.names())
UNKNOWN = "'ties' has no such parameter"
IT_HAS = "it has weight, density, normalize, rescale, lambda, int8_mask, consensus, trim"
RESCALE = "true or false or 'l1' or 'inverse_density' or 'none'"
MOVE = "one value for the whole merge; move it to recipe parameters"
WEIGHT = "7: models[1].parameters.weight"
CASES = {
    "unknown key": (
        ties(more="bse_model: x\n"),
        ["8: bse_model: unknown key, did you mean 'base_model'?"],
    ),
    "unknown key of a model": (
        ties(more="    wieght: 1\n    nmae: x\n"),
        ["8: models[1].wieght: unknown key", "9: models[1].nmae: unknown key"],
    ),
    "two forms at once": (
        ties(
            more="slices: [{sources: [{model: a, layer_range: [0, 1], parameters: {weight: 1}}]}]\n"
        ),
        ["8: slices: expected one of models, slices and modules, got models too"],
    ),
    "tokenizer twice": (
        ties(more="tokenizer_source: base\ntokenizer: {source: union}\n"),
        ["8: tokenizer_source: expected one of tokenizer and tokenizer_source, got both"],
    ),
    "unknown key of the tokenizer": (
        ties(more="tokenizer: {suorce: union}\n"),
        ["8: tokenizer.suorce: unknown key, did you mean 'source'?"],
    ),
    "unknown chat template": (
        ties(more="chat_template: chatlm\n"),
        [
            (
                "8: chat_template: expected auto, alpaca, chatml, exaone, llama3, mistral, or "
                "Jinja text, got 'chatlm', did you mean 'chatml'?"
            )
        ],
    ),
    "slice without sources": (
        "merge_method: linear\nslices:\n  - sources: []\n",
        ["3: slices[0].sources: expected a list of models, got an empty list"],
    ),
    "slices of different lengths": (
        sliced("[{model: a, layer_range: [0, 2]}, {model: b, layer_range: [0, 3]}]"),
        ["3: slices[0].sources: expected equally many layers from each source, got 2, 3"],
    ),
    "layer range that is none": (
        sliced("[{model: a, layer_range: 4}, {model: b, layer_range: [3, 1]}, {model: c}]"),
        [
            (
                "3: slices[0].sources[0].layer_range: expected [first layer, layer after the "
                "last], got 4"
            ),
            "3: slices[0].sources[1].layer_range: expected 0 <= first <= last, got [3, 1]",
            (
                "3: slices[0].sources[2].layer_range: expected [first layer, layer after the "
                "last], got nothing"
            ),
        ],
    ),
    "model twice in a slice": (
        sliced("[{model: a, layer_range: [0, 1]}, {model: a, layer_range: [1, 2]}]"),
        ["3: slices[0].sources[1].model: 'a' is listed twice"],
    ),
    "unknown parameter of a slice": (
        sliced("[{model: a, layer_range: [0, 1]}]", more="    parameters: {wieght: 1}\n"),
        [
            (
                "4: slices[0].parameters.wieght: 'linear' has no such parameter, did you mean "
                "'weight'?; it has weight, normalize"
            ),
        ],
    ),
    "parameter missing in one slice": (
        (
            "merge_method: slerp\nbase_model: a\nslices:\n"
            "  - sources: [{model: a, layer_range: [0, 1]}, {model: b, layer_range: [0, 1]}]\n"
        ),
        ["1: parameters.t: required by merge_method 'slerp'"],
    ),
    "module without models or slices": (
        "merge_method: linear\nmodules:\n  encoder: {parameters: {weight: 1}}\n",
        ["3: modules.encoder: expected {models} or {slices}, and parameters"],
    ),
    "unknown key of a module": (
        (
            "merge_method: linear\nparameters: {weight: 1}\nmodules:\n"
            "  encoder: {models: [{model: a}], paramters: 1}\n"
        ),
        ["4: modules.encoder.paramters: unknown key, did you mean 'parameters'?"],
    ),
    "unknown key of a reference": (
        (
            "merge_method: linear\nparameters: {weight: 1}\nmodels:\n"
            "  - {model: {model: {path: a, rev: b}, loar: {path: c}}}\n"
        ),
        [
            "4: models[0].model.loar: unknown key, did you mean 'lora'?",
            "4: models[0].model.model.rev: unknown key",
        ],
    ),
    "placeholders": (
        (
            "merge_method: linear\nbase_model: '{{ base }}'\ntokenizer_source: '{base}'\n"
            "models: [{model: {model_a}}]\nparameters: {weight: 1}\n"
        ),
        [
            (
                "2: base_model: expected a model, got '{{ base }}': {{ base }} is a placeholder "
                "that was not filled in"
            ),
            (
                "3: tokenizer_source: expected a model, got '{base}': {base} is a placeholder "
                "that was not filled in"
            ),
            (
                "4: models[0].model: expected a model, got {model_a}, a placeholder that was not "
                "filled in"
            ),
        ],
    ),
    "unknown parameter of a model": (
        ties(more="      densty: 0.5\n"),
        [f"8: models[1].parameters.densty: {UNKNOWN}, did you mean 'density'?; {IT_HAS}"],
    ),
    "unknown shared parameter": (
        ties(more="parameters:\n  normalise: true\n"),
        [f"9: parameters.normalise: {UNKNOWN}, did you mean 'normalize'?; {IT_HAS}"],
    ),
    "method that does not exist": (
        "merge_method: slrp\nmodels: [{model: a}]\n",
        [f"1: merge_method: no merge method 'slrp', did you mean 'slerp'?; known: {KNOWN}"],
    ),
    "no method": ("models: [{model: a}]\n", ["1: merge_method: required"]),
    "method that is no name": (
        "merge_method: 3\nmodels: [{model: a}]\n",
        ["1: merge_method: expected a name, got 3"],
    ),
    "number with a comma": (ties("0,6"), [f"{WEIGHT}: expected a number, got '0,6'"]),
    "number as text": (ties("'0.6'"), [f"{WEIGHT}: expected a number, got '0.6'"]),
    "flag for a number": (ties("true"), [f"{WEIGHT}: expected a number, got true"]),
    "nan": (ties(".nan"), [f"{WEIGHT}: expected a finite number, got nan"]),
    "infinity": (ties("1e999"), [f"{WEIGHT}: expected a finite number, got inf"]),
    "nothing": (
        ties("~"),
        [
            f"{WEIGHT}: expected a number, a list, or {{filter, value}}, got nothing",
        ],
    ),
    "date": (
        ties("2001-01-01"),
        [
            f"{WEIGHT}: expected a number, a list, or {{filter, value}}, got 2001-01-01",
        ],
    ),
    "empty list": (
        ties("[]"),
        [
            f"{WEIGHT}: expected a number, a list, or {{filter, value}}, got an empty list",
        ],
    ),
    "list in a list": (
        ties("[1, [2]]"),
        [
            f"{WEIGHT}: a gradient takes plain values only, or only {{filter, value}} entries",
        ],
    ),
    "text in a gradient": (
        ties("[0.1, high]"),
        [f"{WEIGHT}[1]: expected a number, got 'high'"],
    ),
    "text in a filtered gradient": (
        ties("[{filter: mlp, value: [0.1, x]}, {value: 1}]"),
        [f"{WEIGHT}[0].value[1]: expected a number, got 'x'"],
    ),
    "conditional without a value": (
        ties("[{filter: mlp}, {value: 1}]"),
        [f"{WEIGHT}[0]: expected {{filter, value}}, got no value"],
    ),
    "conditional with a third key": (
        ties("{filter: mlp, value: 1, valeu: 2}"),
        [f"{WEIGHT}.valeu: unknown key, did you mean 'value'?"],
    ),
    "filter that is no text": (
        ties("{filter: 3, value: 1}"),
        [f"{WEIGHT}.filter: expected a part of a name, got 3"],
    ),
    "value out of its hard limits": (
        ties(more="      density: 1.5\n"),
        ["8: models[1].parameters.density: must be in (0, 1], got 1.5"],
    ),
    "number for a flag": (
        ties(more="parameters: {normalize: 1}\n"),
        ["8: parameters.normalize: expected true or false, got 1"],
    ),
    "choice that is none": (
        ties(more="parameters: {rescale: l2}\n"),
        [f"8: parameters.rescale: expected {RESCALE}, got 'l2'"],
    ),
    "shared parameter under a model": (
        ties(more="      normalize: true\n"),
        [f"8: models[1].parameters.normalize: {MOVE}"],
    ),
    "parameters that are a list": (
        ties(more="parameters: [1]\n"),
        ["8: parameters: expected parameters (a mapping), got a list"],
    ),
    "missing base": (
        "merge_method: ties\nmodels: [{model: a, parameters: {weight: 1}}]\n",
        ["1: base_model: required by merge_method 'ties'"],
    ),
    "base that is nothing": (
        "merge_method: ties\nbase_model: ~\nmodels: [{model: a, parameters: {weight: 1}}]\n",
        [
            "2: base_model: expected a name, got nothing",
        ],
    ),
    "base with parameters": (
        "merge_method: ties\nbase_model: a\nmodels: [{model: a, parameters: {weight: 1}}]\n",
        ["3: models[0].parameters.weight: the base takes no parameters in 'ties'; remove it"],
    ),
    "base of a method without one": (
        "merge_method: linear\nbase_model: b\nmodels: [{model: a, parameters: {weight: 1}}]\n",
        ["2: base_model: 'linear' has no base; list it as a model or remove it"],
    ),
    "required parameter of one model": (
        "merge_method: linear\nmodels:\n- {model: a, parameters: {weight: 1}}\n- model: b\n",
        ["4: models[1].parameters.weight: required by merge_method 'linear' for every model"],
    ),
    "required shared parameter": (
        "merge_method: slerp\nbase_model: a\nmodels: [{model: b}]\n",
        ["1: parameters.t: required by merge_method 'slerp'"],
    ),
    "too many models": (
        "merge_method: slerp\nbase_model: a\nmodels:\n- model: b\n- model: c\nparameters: {t: 1}\n",
        ["3: models: 'slerp' takes 2 models, the base included, got 3"],
    ),
    "too few models": (
        "merge_method: dare_ties\nbase_model: a\nmodels: [{model: a}]\n",
        ["3: models: 'dare_ties' takes 2 or more models, the base included, got 1"],
    ),
    "model listed twice": (
        ties(more="  - model: one\n    parameters: {weight: 1}\n"),
        ["8: models[2].model: 'one' is listed twice"],
    ),
    "no models": ("merge_method: linear\n", ["1: models: required (or slices, or modules)"]),
    "empty list of models": (
        "merge_method: linear\nmodels: []\n",
        ["2: models: expected a list of models, got an empty list"],
    ),
    "models that are names": (
        "merge_method: linear\nmodels:\n  - a\n",
        ["3: models[0]: expected {model, parameters}, got 'a'"],
    ),
    "model without a name": (
        "merge_method: linear\nmodels:\n  - parameters: {weight: 1}\n",
        ["3: models[0].model: required"],
    ),
    "type that is none": (
        ties(more="dtype: int8\nout_dtype: torch.float64\n"),
        [
            "8: dtype: expected float32 or bfloat16 or float16, got 'int8'",
            "9: out_dtype: expected float32 or bfloat16 or float16, got 'torch.float64'",
        ],
    ),
    "seed that is none": (
        ties(more="seed: -1\n"),
        ["8: seed: expected a whole number from 0 to 2**63 - 1, got -1"],
    ),
    "seed that is a flag": (
        ties(more="seed: true\n"),
        ["8: seed: expected a whole number from 0 to 2**63 - 1, got true"],
    ),
    "list instead of a recipe": ("- a\n", ["1: (file): expected a recipe (a mapping), got a list"]),
    "nothing but a document mark": (
        "---\n",
        ["1: (file): expected one YAML document, got 0"],
    ),
    "many at once": (
        (
            "merge_method: ties\nbse_model: a\nmodels:\n- model: b\n  parameters: {weight: x}\n"
            "seed: .5\n"
        ),
        [
            "1: base_model: required by merge_method 'ties'",
            "2: bse_model: unknown key, did you mean 'base_model'?",
            "5: models[0].parameters.weight: expected a number, got 'x'",
            "6: seed: expected a whole number from 0 to 2**63 - 1, got 0.5",
        ],
    ),
    "repeated key": (
        ties(more="      weight: 0.7\n"),
        ["8: models[1].parameters.weight: repeated key, it stands first in line 7"],
    ),
    "base-60 number": (
        ties("12:30"),
        [f"{WEIGHT}: 12:30 is a base-60 number in YAML; quote it or write a decimal"],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_problem_is_answered_with_line_path_rule_and_value(tmp_path, name):
    text, expected = CASES[name]
    file = tmp_path / "r.yaml"
    file.write_text(text)
    with pytest.raises(DocumentError, match=r"r\.yaml:\d+: ") as caught:
        recipe_reader.read(file)
    assert str(caught.value).splitlines() == [f"{file}:{line}" for line in expected]


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_without_problems_is_read(name):
    assert read_recipe(RECIPES[name]).merge_method == name


def test_ties_recipe_of_the_mergekit_readme_is_accepted_as_it_stands(tmp_path):
    (tmp_path / "r.yaml").write_text(MERGEKIT_README)
    recipe = recipe_reader.read(tmp_path / "r.yaml")
    assert recipe.models == (
        Source("mistralai/Mistral-7B-v0.1"),
        Source("OpenPipe/mistral-ft-optimized-1218", (("density", 0.5), ("weight", 0.5))),
        Source("mlabonne/NeuralHermes-2.5-Mistral-7B", (("density", 0.5), ("weight", 0.3))),
    )
    assert recipe.base_model == "mistralai/Mistral-7B-v0.1"
    assert recipe.parameters == (("normalize", True),)
    assert (recipe.dtype, recipe.out_dtype, recipe.seed) == ("float16", None, 0)


def test_small_number_with_an_exponent_is_a_number():
    (_, source) = read_recipe(ties("1e-4")).models
    assert source.parameters == (("weight", 1e-4),)


def test_settings_are_sorted_by_name_and_kept_in_their_three_forms():
    recipe = read_recipe(
        ties("[{filter: mlp, value: [0, 1]}, {value: 2}]", "      density: [0.1, 0.5]\n")
    )
    assert recipe.models[1].parameters == (
        ("density", (0.1, 0.5)),
        ("weight", (Conditional("mlp", (0, 1)), Conditional(None, 2))),
    )


def test_single_conditional_may_stand_without_a_list():
    alone, listed = (read_recipe(ties(w)) for w in ("{value: 2}", "[{value: 2}]"))
    assert alone == listed
    assert alone.digest() == listed.digest()


def test_model_parameter_may_be_given_once_for_all_models():
    text = "merge_method: linear\nmodels: [{model: a}, {model: b}]\nparameters: {weight: 1}\n"
    assert read_recipe(text).parameters == (("weight", 1),)


def test_type_may_have_torchs_prefix():
    assert read_recipe(ties(more="dtype: torch.bfloat16\n")).dtype == "bfloat16"


def test_base_of_a_method_without_one_may_be_a_listed_model():
    text = "merge_method: linear\nbase_model: a\nmodels: [{model: a, parameters: {weight: 1}}]\n"
    assert read_recipe(text).base_model == "a"


def test_paths_start_where_the_recipe_stands_in_its_document():
    problems = []
    assert recipe_reader.parse({"merge_method": "linear"}, "recipe", problems) is None
    assert problems == [("recipe.models", "required (or slices, or modules)")]


def test_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(MergeError, match=r"nowhere\.yaml: cannot be read: "):
        recipe_reader.read(tmp_path / "nowhere.yaml")


def test_reading_a_recipe_imports_no_heavy_package(tmp_path):
    (tmp_path / "r.yaml").write_text(MERGEKIT_README)
    code = (
        "import sys, pathlib; from merge_core.recipe.read import read;"
        f"read(pathlib.Path({str(tmp_path / 'r.yaml')!r}));"
        "print(sorted({'torch', 'transformers', 'safetensors', 'numpy'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
