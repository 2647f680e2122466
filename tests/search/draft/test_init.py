import json
import os
import re

import pytest

from merge_core.errors import MergeError, OutputExistsError
from merge_core.methods.registry import METHODS
from search.draft.init import Given, init
from search.draft.knobs import spread_over
from search.draft.tasks import Asked
from search.run.check import check
from search.spec.study_file import read
from tests.search.real import QUICKSTART, run_whole

MODELS = QUICKSTART / "models"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "models").symlink_to(MODELS)
    (tmp_path / "tasks").symlink_to(QUICKSTART / "tasks")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def given(*models, base="models/base", method=None, trials=100):
    return Given([f"models/{name}" for name in models or ("add", "sort")], base, method, trials)


def asked(folder, file="tasks/add.jsonl"):
    return Asked(files=[folder / file if file.startswith("/") else folder.__class__(file)])


def written(folder, *models, tasks=False, out="study.yaml", **merge):
    found = init(given(*models, **merge), asked(folder), folder / out, tasks=tasks)
    return found.files[0]


def test_a_base_gives_task_arithmetic_with_a_number_for_each_tensor_and_model(folder):
    spec = read(written(folder, "add", "sort", "rev"))
    recipe = spec.template.data
    assert recipe["merge_method"] == "task_arithmetic"
    assert recipe["base_model"] == "models/base"
    assert recipe["dtype"] == "bfloat16"
    knob = {"low": 0.0, "high": 1.5, "per": "tensor"}
    assert [source["parameters"] for source in recipe["models"]] == [{"weight": knob}] * 3
    assert (spec.search.sampler, spec.search.trials) == ("auto", 100)


def test_without_a_base_models_are_averaged_and_the_comment_says_why(folder):
    file = written(folder, base=None)
    assert read(file).template.data["merge_method"] == "linear"
    assert "# without --base there are no task vectors, only means of weights." in file.read_text()


@pytest.mark.parametrize(
    ("trials", "keys"), [(16, {"per": "layer"}), (15, {"per": 2}), (8, {"per": 2}), (7, {})]
)
def test_fewer_trials_give_wider_bands_where_there_is_no_gradient(folder, trials, keys):
    file = written(folder, "add", "sort", method="sce", trials=trials)
    knob = read(file).template.data["parameters"]["select_topk"]
    assert knob == {"low": 0.05, "high": 1.0, **keys}
    assert not check(file).warnings


@pytest.mark.parametrize(
    ("layers", "knobs", "others", "keys"),
    [
        (32, 1, 0, {"per": 2}),
        (32, 3, 1, {"per": 4}),
        (25, 1, 0, {"per": "layer"}),
        (32, 3, 22, {}),
        (None, 5, 0, {"gradient": 5}),
        (None, 8, 0, {"gradient": 3}),
        (None, 20, 0, {}),
    ],
)
def test_numbers_over_the_layers_are_as_many_as_the_trials_can_search(layers, knobs, others, keys):
    found = spread_over(layers, knobs, others, 100)
    assert found.keys == keys
    each = {"layer": layers, 2: 16, 4: 8}.get(keys.get("per"), keys.get("gradient", 1))
    assert 4 * (knobs * each + others) <= 100


COUNTS = {"model_stock": ("add", "sort", "rev"), "passthrough": ("add",), "slerp": ("add",)}
COUNTS |= {"nearswap": ("add",)}
NO_NUMBERS = ("arcee_fusion", "karcher", "model_stock")


@pytest.mark.parametrize("method", sorted(set(METHODS.names()) - {*NO_NUMBERS}))
def test_every_method_with_numbers_gives_a_study_that_check_accepts(folder, method):
    base = None if method in ("linear", "passthrough") else "models/base"
    file = written(folder, *COUNTS.get(method, ("add", "sort")), base=base, method=method)
    found = check(file, strict=True)
    assert found.facts["dimensions"] > 0
    assert not found.warnings


@pytest.mark.parametrize("method", NO_NUMBERS)
def test_a_method_without_numbers_is_refused(folder, method):
    with pytest.raises(MergeError, match=f"'{method}' has no number to search"):
        written(folder, *COUNTS.get(method, ("add",)), method=method)


def test_models_of_the_hub_are_named_as_they_are(folder):
    merge = Given(["owner/one@main", "owner/two+owner/lora"], "owner/base", None, 100)
    file = init(merge, asked(folder), folder / "study.yaml", tasks=True).files[0]
    spec = read(file)
    names = ["owner/one@main", "owner/two+owner/lora"]
    assert [source["model"] for source in spec.template.data["models"]] == names
    knob = spec.template.data["models"][0]["parameters"]["weight"]
    assert knob == {"low": 0.0, "high": 1.5, "per": "tensor"}
    assert spec.items.search == spec.items.select == 233


def test_paths_are_those_of_the_study_files_folder(folder):
    file = written(folder, out="studies/first")
    assert file == folder / "studies" / "first" / "study.yaml"
    spec = read(file)
    sources = [source["model"] for source in spec.template.data["models"]]
    assert [os.path.realpath(file.parent / name) for name in sources] == [
        str(MODELS / name) for name in ("add", "sort")
    ]
    question = spec.scores[0].options.file
    assert os.path.realpath(file.parent / question) == str(QUICKSTART / "tasks" / "add.jsonl")


def test_what_is_there_is_left_as_it_is(folder):
    file = written(folder)
    before = file.read_bytes()
    with pytest.raises(OutputExistsError, match=r"study\.yaml: exists and is left as it is"):
        written(folder, base=None)
    assert file.read_bytes() == before


def test_an_adapter_is_refused_with_how_it_is_named(folder):
    adapter = folder / "lora"
    adapter.mkdir()
    config = {"peft_type": "LORA", "base_model_name_or_path": "models/base"}
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    merge = Given(["lora", "models/add"], "models/base", None, 100)
    with pytest.raises(MergeError, match=r"holds a LoRA adapter, no model; .*models/base\+lora"):
        init(merge, asked(folder), folder / "new", tasks=False)
    assert not (folder / "new").exists()


def test_parents_of_different_architectures_are_refused_and_nothing_is_left(folder, family):
    other = family("gpt-neox") / "one"
    merge = Given(["models/add", str(other)], "models/base", None, 100)
    with pytest.raises(MergeError, match=r"gpt_neox|architecture"):
        init(merge, asked(folder), folder / "new" / "deep", tasks=False)
    assert not (folder / "new").exists()


def test_a_model_that_is_nowhere_is_refused(folder):
    with pytest.raises(MergeError, match=r"\./nope"):
        init(
            Given(["./nope", "models/add"], None, None, 9), asked(folder), folder / "a", tasks=False
        )


def test_a_base_among_the_models_is_refused(folder):
    with pytest.raises(MergeError, match="is the base and one of the models; name it once"):
        written(folder, "add", "base")


def test_a_study_without_a_task_is_refused_with_what_to_give(folder):
    with pytest.raises(MergeError, match=r"name some by --task .* or --file"):
        init(given(), Asked(), folder / "study.yaml", tasks=False)


def test_what_check_would_refuse_is_not_written(folder):
    with pytest.raises(MergeError, match=r"is not written, since recipe\.base_model: required by"):
        written(folder, base=None, method="ties")
    assert not (folder / "study.yaml").exists()


@pytest.mark.parametrize("rows", [3, 10, 100, 1200])
def test_items_are_shared_out_by_how_many_there_are(folder, rows):
    lines = [json.dumps({"question": f"{i}+1=", "answer": i + 1}) for i in range(rows)]
    (folder / "q.jsonl").write_text("\n".join(lines))
    found = init(given(), asked(folder, "q.jsonl"), folder / "study.yaml", tasks=False)
    items = read(found.files[0]).items
    assert items.search == items.select == min(300, rows // 3)
    assert items.report == "rest"


def test_equal_questions_can_stay_together(folder):
    lines = [json.dumps({"question": f"{i % 4}+1=", "answer": i % 4 + 1}) for i in range(16)]
    (folder / "q.jsonl").write_text("\n".join(lines))
    found = init(given(), asked(folder, "q.jsonl"), folder / "study.yaml", tasks=True)
    assert read(found.files[0]).items.search == 4
    (warning,) = check(found.files[0], tasks=True).warnings
    assert warning.startswith("few items: the 8 of the report pool")


def test_too_few_items_are_refused(folder):
    (folder / "q.jsonl").write_text('{"question": "1+1=", "answer": 2}\n')
    with pytest.raises(MergeError, match="1 items, but each of the pools"):
        init(given(), asked(folder, "q.jsonl"), folder / "study.yaml", tasks=False)


@pytest.mark.slow
def test_a_study_from_scratch_is_run_to_its_end(folder):
    rows = (QUICKSTART / "tasks" / "add.jsonl").read_text().splitlines()[:30]
    (folder / "few.jsonl").write_text("\n".join(rows))
    tasks = Asked(["quickstart_sort"], [(folder / "few.jsonl")], folder / "tasks")
    file = init(given(trials=8), tasks, folder / "first", tasks=True).files[0]
    text = file.read_text()
    assert "# 730 items in all: a third each" in text
    few = re.sub(r"items: .*", "items: {search: 8, select: 6, report: 10}", text)
    file.write_text(few)
    warned = check(file, strict=True, tasks=True).warnings
    assert [line[:9] for line in warned] == ["few items"]
    summary = run_whole(file)
    assert summary["winner"]["report"]["mean"] > 0
    assert summary["pools"] == {"search": 8, "select": 6, "report": 10}
