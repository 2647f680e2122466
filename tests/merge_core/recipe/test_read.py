import subprocess
import sys

import pytest

from merge_core.errors import DocumentError, MergeError
from merge_core.methods.registry import METHODS
from merge_core.recipe import read as recipe_reader
from merge_core.recipe.schema import Conditional, Source
from merge_core.recipe.yaml_document import parse_all
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
MOVE = "changes nothing here: one value for the whole merge; move it to parameters"
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
    "flag for a number": (ties("true"), [f"{WEIGHT}: expected a number, got true"]),
    "nan": (ties(".nan"), [f"{WEIGHT}: expected a finite number, got nan"]),
    "infinity": (ties("1e999"), [f"{WEIGHT}: expected a finite number, got inf"]),
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
    "filter that is a mapping": (
        ties("{filter: {mlp: 1}, value: 1}"),
        [f"{WEIGHT}.filter: expected a part of a name, got a mapping"],
    ),
    "value out of its hard limits": (
        ties(more="      density: 1.5\n"),
        ["8: models[1].parameters.density: must be in [0, 1], got 1.5"],
    ),
    "choice that is none": (
        ties(more="parameters: {rescale: l2}\n"),
        [f"8: parameters.rescale: expected {RESCALE}, got 'l2'"],
    ),
    "parameters that are a list": (
        ties(more="parameters: [1]\n"),
        ["8: parameters: expected parameters (a mapping), got a list"],
    ),
    "missing base": (
        "merge_method: ties\nmodels: [{model: a, parameters: {weight: 1}}]\n",
        ["1: base_model: required by merge_method 'ties'"],
    ),
    "base of a method without one": (
        "merge_method: linear\nbase_model: b\nmodels: [{model: a, parameters: {weight: 1}}]\n",
        ["2: base_model: 'linear' has no base; list it as a model or remove it"],
    ),
    "required parameter of one model": (
        "merge_method: linear\nmodels:\n- {model: a, parameters: {weight: 1}}\n- model: b\n",
        ["4: models[1].parameters.weight: required by merge_method 'linear' for every model"],
    ),
    "required parameter beside parameters": (
        "merge_method: linear\nmodels:\n- {model: a, weight: 1}\n- {model: b, weight: 1}\n",
        [
            f"{i + 3}: models[{i}].parameters.weight: required by merge_method 'linear' for every "
            "model; weight is not read there, move it here"
            for i in (0, 1)
        ],
    ),
    "required shared parameter under a model": (
        "merge_method: slerp\nbase_model: a\nmodels: [{model: b, parameters: {t: 1}}]\n",
        [
            (
                "1: parameters.t: required by merge_method 'slerp'; "
                "models[0].parameters.t is not read there, move it here"
            )
        ],
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


SLERP = "merge_method: slerp\nbase_model: a\nmodels: [{model: a}, {model: b}]\n"
LINEAR = "merge_method: linear\nmodels: [{model: a}, {model: b}]\n"
IDLE = {  # what is said in vain -> the same without it, and the notices
    "parameters of other methods": (
        SLERP + "parameters: {t: 1, int8_mask: true, embed_slerp: true}\n",
        SLERP + "parameters: {t: 1}\n",
        [
            "4: parameters.embed_slerp: changes nothing, here and in today's mergekit; remove it",
            "4: parameters.int8_mask: changes nothing: 'slerp' does not read it; it has t",
        ],
    ),
    "weights where a method has no parameters": (
        (
            "merge_method: arcee_fusion\nbase_model: a\nmodels:\n"
            "- {model: b, parameters: {weight: [{filter: mlp, value: [2, 1]}, {value: x}]}}\n"
        ),
        "merge_method: arcee_fusion\nbase_model: a\nmodels: [{model: b}]\n",
        ["4: models[0].parameters.weight: changes nothing: 'arcee_fusion' does not read it; it"],
    ),
    "base with parameters": (
        ties().replace(
            "- model: base\n", "- model: base\n    parameters: {weight: 1, density: 7}\n"
        ),
        ties(),
        [
            "5: models[0].parameters.density: changes nothing: the base takes no parameters in",
            "5: models[0].parameters.weight: changes nothing: the base takes no parameters in",
        ],
    ),
    "shared parameter under a model": (
        ties(more="      normalize: true\n"),
        ties(),
        [f"8: models[1].parameters.normalize: {MOVE}"],
    ),
    "keys in another place": (
        LINEAR + "normalize: false\nrandom_seed: 3\nallow_negative_weights: true\n"
        "parameters: {weight: 1, dtype: float16}\n",
        LINEAR + "parameters: {weight: 1}\n",
        [
            "3: normalize: changes nothing here; it belongs under parameters, where breadcrumbs, ",
            "4: random_seed: changes nothing, here and in today's mergekit; the seed of random",
            "5: allow_negative_weights: changes nothing, here and in today's mergekit; remove it",
            "6: parameters.dtype: changes nothing here; it belongs to the recipe itself",
        ],
    ),
    "keys of slices in another place": (
        sliced(
            "[{model: a, layer_range: [0, 1]}]",
            "    residual_weight: 0.0\n    layer_range: [0, 1]\n",
        ),
        sliced("[{model: a, layer_range: [0, 1]}]"),
        [
            "4: slices[0].residual_weight: changes nothing, here and in today's mergekit",
            "5: slices[0].layer_range: changes nothing here; it belongs to a source of slices",
        ],
    ),
    "layers of whole models": (
        LINEAR.replace("model: b", "model: b, layer_range: [0, 2]") + "parameters: {weight: 1}\n",
        LINEAR + "parameters: {weight: 1}\n",
        ["2: models[1].layer_range: changes nothing here; it belongs to a source of slices"],
    ),
    "parameter without a value": (
        ties(more="      density:\n"),
        ties(),
        ["8: models[1].parameters.density: changes nothing: it has no value"],
    ),
    "regular expression for a filter": (
        ties("[{filter: '.*mlp.*', value: 1}, {value: 2}]"),
        ties("[{filter: '.*mlp.*', value: 1}, {value: 2}]"),
        ["7: models[1].parameters.weight[0].filter: '.*mlp.*' changes nothing: a filter is a part"],
    ),
}


def reading(text):
    return recipe_reader.reading_of(parse_all(text, "r.yaml"))


@pytest.mark.parametrize("name", IDLE)
def test_what_is_said_in_vain_is_a_notice_and_not_in_the_recipe(name):
    text, without, expected = IDLE[name]
    found = reading(text)
    assert found.recipe == read_recipe(without)
    assert len(found.notices.lines()) == len(expected)
    for line, start in zip(sorted(found.notices.lines()), expected, strict=True):
        assert line.startswith(f"r.yaml:{start}")
    with pytest.raises(DocumentError, match=f"^r.yaml:{expected[0].split(': ')[0]}: "):
        found.notices.refuse()


def test_a_name_that_nobody_ever_knew_is_a_problem_also_at_the_base():
    with pytest.raises(DocumentError, match=r"models\[0\].parameters.wieght: 'ties' has no such"):
        read_recipe(
            ties().replace("- model: base\n", "- model: base\n    parameters: {wieght: 1}\n")
        )


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("1", True),
        ("1.0", True),
        ("'true'", True),
        ("'True'", True),
        ("'1'", True),
        ("yes", True),
        ("0", False),
        ("0.0", False),
        ("'false'", False),
        ("'off'", False),
    ],
)
@pytest.mark.parametrize("name", ["normalize", "rescale", "int8_mask"])
def test_flag_may_be_a_number_or_its_word_and_is_written_as_a_flag(name, said, meant):
    recipe = read_recipe(ties(more=f"parameters: {{{name}: {said}}}\n"))
    assert recipe.parameters == ((name, meant),)
    assert type(recipe.parameters[0][1]) is bool
    assert recipe.plain()["parameters"] == {name: meant}


@pytest.mark.parametrize("said", ["2", "0.5", "-1", "'maybe'", "''", "[1, 2]"])
def test_what_is_no_flag_is_refused(said):
    with pytest.raises(DocumentError, match="expected true or false"):
        read_recipe(ties(more=f"parameters: {{normalize: {said}}}\n"))


def test_number_may_be_text_in_all_places_and_is_written_as_a_number():
    recipe = read_recipe(
        ties("[{filter: mlp, value: ['0.5', ' 1e-1 ']}, {value: '2'}]", "seed: '7'\n")
    )
    (_, source) = recipe.models
    assert source.parameters == (
        ("weight", (Conditional("mlp", (0.5, 0.1)), Conditional(None, 2))),
    )
    assert recipe.seed == 7
    text = sliced("[{model: a, layer_range: ['0', 2.0]}]")
    assert read_recipe(text) == read_recipe(sliced("[{model: a, layer_range: [0, 2]}]"))


@pytest.mark.parametrize("text", ["nan", "inf", "0,5", "1_0", "0x10", "1 2", "", "9" * 400])
def test_text_that_is_no_finite_number_is_refused(text):
    with pytest.raises(DocumentError, match=r"expected a (finite )?number"):
        read_recipe(ties(f"'{text}'"))


def test_keys_without_a_value_and_empty_forms_beside_another_say_nothing():
    text = ties(
        more="tokenizer_source:\nslices: []\nmodules: {}\ntokenizer: ~\nname: null\nseed:\n"
        "chat_template: ~\nout_dtype: null\ndocuments: []\n"
    )
    found = reading(text.replace("- model: base", "- {model: base, parameters: }"))
    assert found.recipe == read_recipe(ties())
    assert found.notices.lines() == []


def test_required_key_without_a_value_is_missing():
    with pytest.raises(
        DocumentError, match=r"base_model: required[^\n]*\n[^\n]*models\[0\].model: "
    ):
        read_recipe("merge_method: ties\nbase_model:\nmodels: [{model: , parameters: {weight: 1}}]")


def test_recipe_with_notices_is_written_and_read_back_without_them():
    for text, without, _ in IDLE.values():
        if "mlp.*" not in text:
            back = reading(reading(text).recipe.to_yaml())
            assert back.recipe.digest() == read_recipe(without).digest()
            assert back.notices.lines() == []


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
