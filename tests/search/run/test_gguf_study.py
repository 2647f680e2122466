"""A GGUF file as a study's base is like the folder that it was made of."""

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from merge_core.errors import CheckpointError, MergeWarning
from merge_core.parents.locate import locate
from search.cli import app
from search.space.starting_points import baselines
from search.spec import study_file
from search.storage.locate import open_study
from search.trial.behaviour import Watch
from search.trial.worker import Job, Worker
from search.workers.cargo import Cargo, opening_at
from search.workers.ferry import Ferry, Shore
from search.workers.opening import Opening
from search.workers.permissions import Permissions
from tests.merge_core.parents import gguf_files
from tests.search.real import QUICKSTART, run_whole, write_study

TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "generation_config.json")


@pytest.fixture
def models(tmp_path):
    """The quickstart's models, and as ``packed`` a folder with its base in a GGUF file alone."""
    folder = tmp_path / "models"
    shutil.copytree(QUICKSTART / "models", folder)
    (folder / "packed").mkdir()
    base = AutoModelForCausalLM.from_pretrained(folder / "base", dtype="float32")
    base.save_pretrained(folder / "base")
    gguf_files.write(folder / "packed" / "base.gguf", base, tokenizer=False)
    for name in ("config.json", *TOKENIZER):
        shutil.copy(folder / "base" / name, folder / "packed")
    return folder


def study(folder, models, base, **more):
    file = write_study(folder, models=models, **more)
    file.write_text(file.read_text().replace(f"{models}/base", str(base)))
    return file


def called(*arguments, code=0):
    found = CliRunner().invoke(app, [*map(str, arguments)])
    assert found.exit_code == code, found.output
    return found.stdout


@pytest.mark.slow
def test_study_over_it_is_run_reproduced_and_bundled_as_one_over_a_folder(models, tmp_path):
    found = {}
    for name, base in {"plain": models / "base", "packed": models / "packed/base.gguf"}.items():
        file = study(tmp_path / name, models, base, trials=2)
        checked = json.loads(called("check", file, "--json"))
        assert checked["dimensions"] == 4
        run_whole(file)
        record = open_study(str(file.parent))[1]
        found[name] = [(t.weights_digest, t.value) for t in record.trials]
        parents = record.about["parents"]
        assert parents[str(base)] == found.setdefault("digest", parents[str(base)])
    assert found["packed"] == found["plain"]
    packed = tmp_path / "packed"
    assert "0: identical" in called("reproduce", packed, "--trial", "0")
    called("bundle", packed, tmp_path / "packed.zip")
    given = ("--trial", "0", "--gguf", "--quant", "f32")
    with pytest.warns(MergeWarning, match="no tokenizer: it is a WordLevel"):
        called("export", packed, tmp_path / "out", *given)
    assert "packed/base.gguf" in (tmp_path / "out/recipe.yaml").read_text()
    assert json.loads((tmp_path / "out/config.json").read_text())["dtype"] == "float32"
    written = [locate(x, [tmp_path]).model for x in ("out", "out/out-F32.gguf")]
    one, other = (load_file(x.folder / "model.safetensors") for x in written)
    assert all(one[name].equal(other[name]) for name in one.keys() | other.keys())


def test_how_to_pack_is_said_with_gguf_alone_and_q8_0_is_meant_without(models, tmp_path):
    recipe = tmp_path / "r.yaml"
    recipe.write_text(f"merge_method: passthrough\nmodels: [{{model: {models}/packed}}]\n")
    found = CliRunner().invoke(app, ["merge", str(recipe), str(tmp_path / "a"), "--quant", "f16"])
    assert found.exit_code != 0
    assert "--quant f16: goes with --gguf" in str(found.exception)
    with pytest.warns(MergeWarning, match="no tokenizer: it is a WordLevel"):
        called("merge", recipe, tmp_path / "a", "--gguf")
    assert (tmp_path / "a/a-Q8_0.gguf").is_file()


class Machine(Shore):
    """Another machine, from which all that the coordinator has is hidden."""

    def receive(self, sealed, pieces):
        self.begin(sealed)
        for number, piece in pieces:
            self.take(number, piece)
        self.finish()

    def lacks(self, parcels):
        return list(range(len(parcels)))


@pytest.mark.parametrize("name", ["packed", "packed/base.gguf"])
def test_it_is_sent_to_another_machine_with_what_lies_beside_it(
    models, tmp_path, monkeypatch, name
):
    spec = study_file.read(study(tmp_path / "study", models, models / name))
    home = Worker(spec.data, spec.folder)
    job = Job(baselines(home.spec, home.builder.space)[0].recipe, "search")
    wanted = home.run(job)
    opening = Opening(spec.data, str(spec.folder), None, Permissions(), directory=str(tmp_path))
    cargo = Cargo.of(opening)
    files = {file.name for file in cargo.models[str(models / name)].files}
    assert files == {"base.gguf", "config.json", *TOKENIZER}
    monkeypatch.setenv("MERGETUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("search.workers.parcels.Sealed.is_equal", lambda self: False)
    places = Ferry(cargo).places("one", Machine())
    shutil.rmtree(models)
    found = opening_at(opening, cargo, places).open().run(job)
    assert (found.weights_digest, found.scores) == (wanted.weights_digest, wanted.scores)


def test_file_that_is_written_over_while_a_study_runs_is_named(models, tmp_path):
    spec = study_file.read(study(tmp_path / "study", models, models / "packed"))
    watch = Watch(Worker(spec.data, spec.folder).builder.parents.values())
    watch.check()
    file = models / "packed/base.gguf"
    file.write_bytes(file.read_bytes())
    with pytest.raises(CheckpointError, match=r"base\.gguf: was changed while the study ran"):
        watch.check()


def test_draft_names_the_file_as_seen_from_the_study(models, tmp_path):
    written = tmp_path / "new" / "study.yaml"
    base, expert = models / "packed/base.gguf", models / "add"
    rows = [{"q": f"add 1+{i}=", "a": str(i + 1)} for i in range(60)]
    questions = tmp_path / "questions.jsonl"
    questions.write_text("\n".join(map(json.dumps, rows)))
    given = ("--base", base, "--file", questions, "--out", written)
    called("init", expert, models / "sort", *given)
    assert Path(study_file.read(written).template.base_or_first()) == base
