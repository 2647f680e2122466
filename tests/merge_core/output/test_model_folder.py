import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from safetensors.torch import load_file

from merge_core import api
from merge_core.errors import MergeError, NonFiniteError, OutputExistsError
from merge_core.merge.nested import plan
from merge_core.output import model_folder
from merge_core.output.live_model import Candidate
from merge_core.output.model_card import CardResult
from merge_core.output.model_folder import Writing, portable, write
from merge_core.parents.checkpoint import Checkpoint
from merge_core.parents.locate import Located, Place
from merge_core.parents.open import open_parents
from merge_core.parents.weight_files import INDEX, SINGLE
from merge_core.recipe import read as recipe_reader
from tests.merge_core.conftest import change
from tests.merge_core.places import at
from tests.merge_core.recipes import DARE_TIES, LINEAR, RECIPES, SLERP, TIES

LAST = "model.norm.weight"  # the last tensor in the order of names: a late failure


def names(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def loaded(folder):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype="auto").eval()


def again(folder):
    """Merge the recipe that stands in a written folder, live; return its digest."""
    recipe = recipe_reader.read(folder / "recipe.yaml")
    return Candidate().build(plan(recipe, open_parents(recipe.references(), [folder])))


def test_folder_holds_weights_config_tokenizer_recipe_and_card(planned, tmp_path):
    planned(TIES).write(tmp_path / "out")
    assert names(tmp_path / "out") == [
        "README.md",
        "config.json",
        "generation_config.json",
        "mergetune.json",
        SINGLE,
        "recipe.yaml",
        "tokenizer.json",
        "tokenizer_config.json",
    ]


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_in_the_folder_merges_to_the_same_weights(planned, tmp_path, name):
    digest = planned(f"dtype: bfloat16{RECIPES[name]}").write(tmp_path / "out")
    assert again(tmp_path / "out") == digest


def test_recipe_in_the_folder_holds_wherever_one_stands(planned, own_family, tmp_path, monkeypatch):
    root = own_family()
    monkeypatch.chdir(root)
    made = planned(DARE_TIES, root=root)
    digest = made.write(Path("deep/er/out"))
    (root / "deep" / "er").rename(root / "deep" / "moved")
    monkeypatch.chdir(tmp_path)
    assert again(root / "deep" / "moved" / "out") == digest


def test_recipe_in_the_folder_names_hub_parents_by_their_ids_and_folders_relative(
    planned, tmp_path
):
    made = planned(SLERP)
    one = made.parents["one"]
    one.located = Located("one", Place("one", one.folder, "c0ffee"))
    (tmp_path / "out").mkdir()
    data = portable(made.plan.recipe, made.parents, tmp_path / "out").plain()
    assert data["models"][0]["model"] == "one@c0ffee"
    base = data["base_model"]
    assert base.startswith("../")
    assert (tmp_path / "out" / base).resolve() == made.parents["base"].folder.resolve()


@pytest.mark.parametrize("shard_bytes", [1, 2000, 10**9])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_shards_hold_the_same_weights_and_load_in_transformers(
    planned, tmp_path, shard_bytes, dtype
):
    made = planned(f"dtype: {dtype}{TIES}")
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert made.write(whole) == made.write(parts, how=Writing(shard_bytes=shard_bytes))
    assert Checkpoint(at(parts)).digest == Checkpoint(at(whole)).digest
    a, b = loaded(whole).state_dict(), loaded(parts).state_dict()
    assert a.keys() == b.keys()
    assert all(a[name].equal(b[name]) for name in a)


def test_no_shard_is_larger_than_asked_unless_it_is_one_tensor(planned, tmp_path):
    planned(LINEAR).write(tmp_path / "out", how=Writing(shard_bytes=2000))
    index = json.loads((tmp_path / "out" / INDEX).read_text())
    files = sorted(set(index["weight_map"].values()))
    assert files == sorted(path.name for path in (tmp_path / "out").glob("*.safetensors"))
    n = len(files)
    assert files == [f"model-{i + 1:05d}-of-{n:05d}.safetensors" for i in range(n)]
    total = 0
    for file in files:
        tensors = load_file(tmp_path / "out" / file)
        size = sum(x.numel() * x.element_size() for x in tensors.values())
        assert size <= 2000 or len(tensors) == 1
        total += size
    assert index["metadata"]["total_size"] == total


def test_config_and_stored_type_agree(planned, tmp_path):
    planned(f"dtype: bfloat16{TIES}", dtype="float32").write(tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["dtype"] == "bfloat16"
    assert "torch_dtype" not in config
    assert {x.dtype for x in load_file(tmp_path / "out" / SINGLE).values()} == {torch.bfloat16}


def test_old_name_of_the_type_in_the_config_does_not_survive(planned, own_family, tmp_path):
    root = own_family()
    path = root / "base" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "torch_dtype": "float16"}))
    planned(TIES, root=root).write(tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (config["dtype"], config.get("torch_dtype")) == ("float32", None)


def test_tokenizer_is_that_of_the_parent_that_gives_the_config(planned, own_family, tmp_path):
    from transformers import AutoTokenizer

    root = own_family()
    for name in ("base", "one"):
        (root / name / "chat_template.jinja").write_text(name)
        (root / name / "notes.txt").write_text("not to be copied")
    planned(SLERP, root=root).write(tmp_path / "out")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.decode(tokenizer("2+3=5").input_ids) == "2+3=5"
    assert (tmp_path / "out" / "chat_template.jinja").read_text() == "base"
    assert not (tmp_path / "out" / "notes.txt").exists()


@pytest.mark.parametrize("vocabulary", ["", "tokenizer: {source: one}\n"])
def test_files_of_the_processor_go_along_whatever_becomes_of_the_vocabulary(
    planned, own_family, tmp_path, vocabulary
):
    root = own_family()
    for name in ("preprocessor_config.json", "tekken.json", "additional_chat_templates/rag.jinja"):
        for model in ("base", "one"):
            (root / model / name).parent.mkdir(exist_ok=True)
            (root / model / name).write_text("{}")
    planned(SLERP + vocabulary, root=root).write(tmp_path / "out")
    found = names(tmp_path / "out")
    assert "preprocessor_config.json" in found
    assert "additional_chat_templates/rag.jinja" in found
    assert ("tekken.json" in found) == (not vocabulary)  # it holds for the old one only


@pytest.mark.parametrize(
    "spoil",
    [
        lambda base: (base / "chat_template.jinja").write_bytes(b"\xff"),
        lambda base: (base / "tokenizer_config.json").write_text("{"),
        lambda base: (base / "generation_config.json").write_text("[]"),
    ],
)
def test_what_is_wrong_beside_the_weights_is_told_before_they_are_merged(
    planned, own_family, tmp_path, monkeypatch, spoil
):
    root = own_family()
    made = planned(f"{LINEAR}chat_template: auto\n", root=root)
    spoil(root / "base")
    monkeypatch.setattr(model_folder, "write_shards", lambda *_: pytest.fail("it was merged"))
    with pytest.raises(MergeError, match=r"cannot be read|expected a JSON object"):
        made.write(tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("out", "more", "message"),
    [
        ("taken", "", r"taken: exists; choose another place"),
        ("file/out", "", r"file/out: cannot be written: .*file is no folder"),
        ("new", "chat_template: '{% foo %}'", r"chat_template: no valid Jinja: line 1"),
    ],
)
def test_what_needs_no_model_is_told_before_models_are_looked_for(tmp_path, out, more, message):
    (tmp_path / "taken").mkdir()
    for name in ("file", "taken/x"):
        (tmp_path / name).touch()
    recipe = f"merge_method: linear\nmodels: [{{model: ./gone, parameters: {{weight: 1}}}}]\n{more}"
    with pytest.raises(MergeError, match=message):
        api.merge(recipe, tmp_path / out)


def test_record_names_recipe_weights_parents_and_versions(planned, tmp_path):
    made = planned(TIES, "pythia")
    digest = made.write(tmp_path / "out")
    record = json.loads((tmp_path / "out" / "mergetune.json").read_text())
    assert record["recipe"] == made.plan.recipe.plain()
    assert record["recipe_digest"] == made.plan.recipe.digest()
    assert record["weights_digest"] == digest
    assert record["parents"] == {name: parent.digest for name, parent in made.parents.items()}
    assert record["dropped"] == dict(made.plan.dropped)
    assert record["versions"]["torch"] == version("torch")


def test_card_names_method_parents_recipe_and_digest(planned, tmp_path):
    made = planned(TIES)
    digest = made.write(tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: transformers\n")
    assert f"```yaml\n{(tmp_path / 'out' / 'recipe.yaml').read_text()}```" in card
    assert digest in card
    assert "arXiv:2306.01708" in card
    assert all(parent.digest in card for parent in made.parents.values())


def test_two_writes_give_the_same_bytes(planned, tmp_path):
    for name in ("a", "b"):
        planned(DARE_TIES).write(tmp_path / name, how=Writing(shard_bytes=2000))
    assert names(tmp_path / "a") == names(tmp_path / "b")
    for name in names(tmp_path / "a"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


@pytest.mark.parametrize("kind", ["llama-tied", "llama"])
def test_head_is_stored_only_where_it_is_not_tied(planned, tmp_path, kind):
    planned(TIES, kind).write(tmp_path / "out")
    assert ("lm_head.weight" in load_file(tmp_path / "out" / SINGLE)) == (kind == "llama")


def test_whole_number_tensors_are_written_as_they_are(planned, own_family, tmp_path):
    root = own_family()
    for name in ("base", "one"):
        change(root / name, model__norm__weight=torch.arange(16))
    planned(SLERP, root=root).write(tmp_path / "out")
    stored = load_file(tmp_path / "out" / SINGLE)
    assert stored["model.norm.weight"].equal(torch.arange(16))


def test_tensor_that_fails_late_leaves_nothing(planned, own_family, tmp_path):
    root = own_family()
    change(root / "one", model__norm__weight=torch.full((16,), torch.nan))
    made = planned(SLERP, root=root)
    assert made.plan.steps[-1].tensor == LAST
    (tmp_path / "place").mkdir()
    with pytest.raises(NonFiniteError, match=LAST):
        made.write(tmp_path / "place" / "out", how=Writing(shard_bytes=2000))
    assert names(tmp_path / "place") == []


def test_crash_in_the_middle_leaves_nothing(planned, tmp_path, monkeypatch):
    def crash(*_):
        assert list((tmp_path / "place").glob(".out*/model*")), "weights should be written by now"
        raise KeyboardInterrupt("stop")

    monkeypatch.setattr("merge_core.output.model_folder.card", crash)
    with pytest.raises(KeyboardInterrupt, match="stop"):
        planned(TIES).write(tmp_path / "place" / "out")
    assert names(tmp_path / "place") == []


def test_folder_that_exists_is_refused(planned, tmp_path):
    planned(TIES).write(tmp_path / "out")
    before = (tmp_path / "out" / SINGLE).read_bytes()
    with pytest.raises(OutputExistsError, match=r"out: exists; choose another place or"):
        planned(SLERP).write(tmp_path / "out")
    assert (tmp_path / "out" / SINGLE).read_bytes() == before


def test_overwriting_leaves_nothing_of_the_old_folder(planned, tmp_path):
    planned(TIES).write(tmp_path / "out", how=Writing(shard_bytes=2000))
    digest = planned(SLERP).write(tmp_path / "out", overwrite=True)
    assert [path.name for path in (tmp_path / "out").glob("*.safetensors*")] == [SINGLE]
    assert again(tmp_path / "out") == digest
    assert names(tmp_path)[0] == "out"


def text_in(folder, name, text="mine"):
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)


@pytest.mark.parametrize(
    ("file", "why"),
    [
        ("thesis.txt", r"mergetune did not write it \(it has no mergetune.json\)"),
        ("study.yaml", "a study is in it"),
        ("deep/er/results/.writer.lock", "a study is in it"),
    ],
)
def test_a_folder_that_mergetune_did_not_write_is_never_replaced(planned, tmp_path, file, why):
    out = tmp_path / "out"
    if "study" in why:
        planned(TIES).write(out)
    text_in(out, file)
    with pytest.raises(OutputExistsError, match=rf"out: is not replaced, since {why}; choose ano"):
        planned(SLERP).write(out, overwrite=True)
    assert (out / file).read_text() == "mine"


def test_a_file_is_never_replaced(planned, tmp_path):
    text_in(tmp_path, "out")
    with pytest.raises(OutputExistsError, match="mergetune did not write it"):
        planned(SLERP).write(tmp_path / "out", overwrite=True)


@pytest.mark.parametrize("place", ["{root}", "{root}/one"])
def test_a_folder_that_holds_a_parent_is_never_replaced(planned, own_family, place):
    root = own_family()
    out = Path(place.format(root=root))
    text_in(out, "mergetune.json", "{}")
    with pytest.raises(OutputExistsError, match="a model that is merged is in it"):
        planned(SLERP, root=root).write(out, overwrite=True)
    assert (root / "one" / "config.json").is_file()


def test_a_folder_that_holds_the_working_directory_is_never_replaced(
    planned, tmp_path, monkeypatch
):
    out = tmp_path / "out"
    planned(TIES).write(out)
    (out / "here").mkdir()
    monkeypatch.chdir(out / "here")
    for name in (out, Path(".."), Path("..") / "here" / ".."):
        with pytest.raises(OutputExistsError, match="the working directory is in it"):
            planned(SLERP).write(name, overwrite=True)


def test_an_empty_folder_is_filled(planned, tmp_path):
    (tmp_path / "out").mkdir()
    planned(SLERP).write(tmp_path / "out", overwrite=True)


def test_a_link_is_followed_to_its_folder(planned, tmp_path):
    planned(TIES).write(tmp_path / "disk" / "out")
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "out")
    digest = planned(SLERP).write(tmp_path / "link", overwrite=True)
    assert (tmp_path / "link").is_symlink()
    assert again(tmp_path / "disk" / "out") == digest
    text_in(tmp_path / "other", "thesis.txt")
    (tmp_path / "second").symlink_to(tmp_path / "other")
    with pytest.raises(OutputExistsError, match="other: is not replaced"):
        planned(SLERP).write(tmp_path / "second", overwrite=True)


@pytest.mark.slow
def test_overwriting_that_fails_keeps_the_old_folder(planned, own_family, tmp_path):
    root = own_family()
    change(root / "one", model__norm__weight=torch.full((16,), torch.nan))
    out = tmp_path / "place" / "out"
    digest = planned(TIES).write(out)
    before = names(out)
    with pytest.raises(MergeError, match=LAST):
        planned(SLERP, root=root).write(out, overwrite=True)
    assert names(out) == before
    assert again(out) == digest
    assert [path.name for path in (tmp_path / "place").iterdir()] == ["out"]


def test_record_is_the_last_file(planned, tmp_path, monkeypatch):
    written = []
    write_text = Path.write_text

    def note(path, *args, **options):
        written.append(path.name)
        return write_text(path, *args, **options)

    made = planned(TIES)
    monkeypatch.setattr(Path, "write_text", note)
    write(made.plan, tmp_path / "out", how=Writing(shard_bytes=2000))
    assert written[-1] == "mergetune.json"
    assert written.count("mergetune.json") == 1


@pytest.mark.slow
def test_bytes_do_not_depend_on_hash_seed_or_threads(family, tmp_path):
    (tmp_path / "r.yaml").write_text(
        DARE_TIES.replace("model: ", f"model: {family()}/").replace(
            "base_model: base", f"base_model: {family()}/base"
        )
    )
    code = "import sys; from search.cli import main; main()"
    for seed, threads in (("1", "1"), ("2", "2")):
        command = [sys.executable, "-c", code, "merge", "r.yaml", f"out{seed}"]
        environment = {**os.environ, "PYTHONHASHSEED": seed, "OMP_NUM_THREADS": threads}
        environment["PYTHONPATH"] = os.pathsep.join(sys.path)
        subprocess.run(command, check=True, cwd=tmp_path, env=environment, capture_output=True)
    first, second = tmp_path / "out1", tmp_path / "out2"
    assert names(first) == names(second)
    for name in names(first):
        assert (first / name).read_bytes() == (second / name).read_bytes(), name


def card_head(folder):
    return yaml.safe_load((folder / "README.md").read_text().split("---\n")[1])


def test_card_names_the_licences_that_the_parents_cards_state(planned, own_family, tmp_path):
    root = own_family()
    for name in ("base", "one"):
        (root / name / "README.md").write_text("---\nlicense: apache-2.0\n---\nA model.\n")
    planned(SLERP, root=root).write(tmp_path / "same")
    assert card_head(tmp_path / "same")["license"] == "apache-2.0"
    (root / "one" / "README.md").write_text("---\nlicense: llama3\ntags: [x]\n---\n")
    planned(SLERP, root=root).write(tmp_path / "mixed")
    assert "license" not in card_head(tmp_path / "mixed")
    text = (tmp_path / "mixed" / "README.md").read_text()
    assert "licence llama3" in text
    assert "licence apache-2.0" in text


@pytest.mark.parametrize("card", ["no head", "---\nlicense: [\n---\n", "---\n- x\n---\n", "---\n"])
def test_card_without_a_licence_states_none(planned, own_family, tmp_path, card):
    root = own_family()
    (root / "one" / "README.md").write_text(card)
    planned(SLERP, root=root).write(tmp_path / "out")
    assert "`one`, licence not stated" in (tmp_path / "out" / "README.md").read_text()


def test_hub_parents_are_pinned_in_what_is_written(planned, tmp_path):
    made = planned(SLERP)
    one = made.parents["one"]
    one.located = Located("one", Place("one", one.folder, "c0ffee"))
    made.write(tmp_path / "out")
    record = json.loads((tmp_path / "out" / "mergetune.json").read_text())
    assert record["pinned"] == {"one": "one@c0ffee"}
    recipe = yaml.safe_load((tmp_path / "out" / "recipe.yaml").read_text())
    assert recipe["models"][0]["model"] == "one@c0ffee"
    assert card_head(tmp_path / "out")["base_model"] == ["one"]


@pytest.mark.parametrize(
    "more", ["chat_template: '{% for'", "tokenizer: {source: union}"], ids=["template", "tokenizer"]
)
def test_what_is_wrong_beside_the_weights_is_told_before_a_tensor_is_merged(
    planned, own_family, tmp_path, monkeypatch, more
):
    made = planned(f"{SLERP}{more}\n", root=own_family())
    monkeypatch.setattr(Checkpoint, "tensor", lambda *_: pytest.fail("a tensor was read"))
    if made.plan.vocabulary is not None:
        monkeypatch.setattr(made.plan.vocabulary.tokenizer, "save_pretrained", lambda _: None)
    with pytest.raises(MergeError):
        made.write(tmp_path / "out")
    assert not (tmp_path / "out").exists()


RESULT = CardResult(
    {"model-index": [{"name": "n", "results": [
        {"task": {"type": "text-generation"}, "dataset": {"type": "d", "name": "d"},
         "metrics": [{"type": "acc", "value": 0.75}]}]}]},
    "It is *good*.\n",
)  # fmt: skip


def test_card_has_what_is_known_of_the_model_in_the_hubs_form(planned, tmp_path):
    planned(SLERP).write(tmp_path / "out", result=RESULT)
    card = ModelCard.load(tmp_path / "out" / "README.md")
    (result,) = card.data.eval_results
    assert (card.data.model_name, result.dataset_name, result.metric_value) == ("n", "d", 0.75)
    assert card.data.library_name == "transformers"
    assert "It is *good*.\n\nMade with mergetune" in card.text
    assert "merge_method: slerp" in card.text


def test_card_is_written_anew_without_the_rest_where_the_result_is_another(planned, tmp_path):
    made = planned(SLERP)
    out = tmp_path / "out"
    made.write(out)
    before = {file.name: file.stat().st_mtime_ns for file in out.iterdir()}
    assert model_folder.write_card(made.plan, out, RESULT)
    assert ModelCard.load(out / "README.md").data.eval_results[0].metric_value == 0.75
    after = {file.name: file.stat().st_mtime_ns for file in out.iterdir()}
    assert {name for name in after if after[name] != before[name]} == {"README.md"}
    assert model_folder.write_card(made.plan, out, RESULT)
    assert (out / "README.md").stat().st_mtime_ns == after["README.md"], "nothing new"
    (out / "README.md").unlink()
    assert model_folder.write_card(made.plan, out, RESULT)
    assert (out / "README.md").is_file()


@pytest.mark.parametrize("change", ["{}mine", "x{}", ""])
def test_card_that_somebody_wrote_on_stays(planned, tmp_path, change):
    made = planned(SLERP)
    out = tmp_path / "out"
    made.write(out)
    mine = change.replace("{}", (out / "README.md").read_text())
    (out / "README.md").write_text(mine)
    assert not model_folder.write_card(made.plan, out, RESULT)
    assert (out / "README.md").read_text() == mine
