"""A study as one file: what is in it, what never is, and that it is the study."""

from __future__ import annotations

import errno
import gzip
import hashlib
import json
import sqlite3
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest

from evaluators.answer import Answer
from merge_core.errors import MergeError, OutputError, OutputExistsError, ParameterError
from merge_core.recipe import read as recipe_reader
from search.bundle.inputs import inputs_of
from search.bundle.portable import Portable, renamed, without_places
from search.bundle.texts import allowed_by, licence_of
from search.bundle.write import write
from search.run.resume import about_of, open_for
from search.spec.inside import leads_out
from search.spec.study_file import StudySpec
from search.storage import archive, chunks
from search.storage.locate import open_study
from search.storage.open import open_record
from search.storage.packed import packed_ids
from search.storage.said import packed, unpacked
from search.storage.tensor_sums import packed_sums, unpacked_sums
from search.trial.trial import Measurement
from tests.search import toy
from tests.servers import Server

Study = Callable[..., StudySpec]


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> StudySpec:
    """A toy study with its file, searched to the end; leave it as it is."""
    spec = toy.spec_of(toy.STUDY, tmp_path_factory.mktemp("toy"))
    spec.folder.joinpath("study.yaml").write_text(toy.STUDY)
    toy.searched(spec)
    return spec


def bundled(spec: StudySpec, out: Path, **how: Any) -> dict[str, bytes]:
    """Bundle a toy study, whose tasks cannot be opened; return name -> bytes."""
    write(str(spec.folder), out, texts=False, **how)
    with zipfile.ZipFile(out) as source:
        return {name: source.read(name) for name in source.namelist()}


def test_a_bundle_is_the_study_trial_by_trial(searched: StudySpec, tmp_path: Path) -> None:
    bundled(searched, out := tmp_path / "toy.zip")
    spec, record = open_study(str(out))
    _, before = open_study(str(searched.folder))
    assert record.trials == before.trials
    assert record.distributions == before.distributions
    assert spec.template == searched.template
    assert record.name == before.name


def test_what_is_cut_in_the_storage_is_whole_in_a_bundle_and_names_no_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "MOST", 200)  # nearly everything is
    spec = toy.spec_of(toy.SHORT, tmp_path / "long")
    spec.folder.mkdir(exist_ok=True)
    spec.folder.joinpath("study.yaml").write_text(toy.SHORT)
    record = toy.searched(spec)
    failed = replace(record.trials[0], number=len(record.trials), state="failed", value=None)
    path = f"{tmp_path}/secret/file.py"
    record.add(
        replace(failed, error=f"File {path!r}\n" * 20, measured={"search": Measurement()}), {}
    )
    bundled(spec, out := tmp_path / "toy.zip")
    _, again = open_study(str(out))
    assert again.trials[:-1] == record.trials[:-1]
    assert str(tmp_path) not in (again.trials[-1].error or str(tmp_path))
    assert all(again.item_ids(pool) == record.item_ids(pool) for pool in ("search", "report"))


def test_the_manifest_has_the_digest_of_every_file_and_of_every_parent(
    searched: StudySpec, tmp_path: Path
) -> None:
    files = bundled(searched, tmp_path / "toy.zip")
    manifest = json.loads(files.pop("manifest.json"))
    assert {name: x["sha256"] for name, x in manifest["files"].items()} == {
        name: hashlib.sha256(data).hexdigest() for name, data in files.items()
    }
    assert {*manifest["parents"]} == {*toy.PARENTS}
    assert (manifest["format"], manifest["study"]) == (1, "toy")


def test_the_same_study_gives_the_same_bytes(searched: StudySpec, tmp_path: Path) -> None:
    for name in ("one.zip", "two.zip"):
        bundled(searched, tmp_path / name)
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()


def test_items_have_their_ids_and_without_texts_the_manifest_says_why(
    searched: StudySpec, tmp_path: Path
) -> None:
    files = bundled(searched, tmp_path / "toy.zip")
    rows = [json.loads(line) for line in gzip.decompress(files["items.jsonl.gz"]).splitlines()]
    assert len(rows) == 60
    assert {*rows[0]} == {"task", "pool", "id"}
    told = json.loads(files["manifest.json"])["texts"]["gain"]
    assert told["texts"] == 0
    assert told["why"] == "texts were not asked for (--no-texts)"


def test_a_study_that_another_process_runs_is_bundled_as_it_stands(
    study: Study, tmp_path: Path
) -> None:
    spec = study()
    spec.folder.joinpath("study.yaml").write_text(toy.STUDY)
    answers = iter([False, False, True])
    record = toy.searched(spec, stop=lambda: next(answers))
    with record.writing():  # a lease is held
        bundled(spec, out := tmp_path / "toy.zip")
    _, found = open_study(str(out))
    assert len(found.trials) == 2
    assert found.stored.small() == {}
    with found.writing():  # so nobody has to wait for that process
        pass


@pytest.mark.slow
def test_absolute_paths_of_models_files_and_errors_are_not_in_a_bundle(
    study: Study, tmp_path: Path
) -> None:
    there = str(tmp_path / "models" / "one")
    text = toy.STUDY.replace("org/one", there)
    mine = tmp_path / "elsewhere" / "mine.yaml"
    mine.parent.mkdir()
    mine.write_text(
        f"{{merge_method: linear, models: [{{model: {there}, parameters: {{weight: 1}}}}]}}"
    )
    text += f"baselines: {{mine: {mine}}}\nengine: {{cache: {tmp_path / 'cache'}}}\n"
    spec = study(text)
    spec.folder.joinpath("study.yaml").write_text(text)
    points = {name.replace("org/one", there): point for name, point in toy.PARENTS.items()}

    class Failing(toy.Toy):
        def build(self, recipe: Any) -> str:
            if len(self.built) == 9:
                raise MemoryError(f"no room in {tmp_path}/a b/c.safetensors")
            return super().build(recipe)

    toy.searched(spec, Failing(spec, parents=points))
    files = bundled(spec, out := tmp_path / "toy.zip")
    for name, data in files.items():
        plain = gzip.decompress(data) if name.endswith(".gz") else data
        assert str(tmp_path).encode() not in plain, name
    _, record = open_study(str(out))
    assert "parent:../models/one" in [t.baseline for t in record.trials]
    failed = [t for t in record.trials if t.state == "failed"]
    assert "MemoryError" in failed[0].reason
    assert json.loads(files["manifest.json"])["parents"].keys() == {
        "org/base",
        "../models/one",
        "org/two",
    }
    assert b"baseline-1.yaml" in files["study.yaml"]


def test_a_bundle_goes_on_where_its_study_was(searched: StudySpec, tmp_path: Path) -> None:
    bundled(searched, tmp_path / "toy.zip")
    with zipfile.ZipFile(tmp_path / "toy.zip") as source:
        source.extractall(tmp_path / "toy")
    again = toy.spec_of((tmp_path / "toy" / "study.yaml").read_text(), tmp_path / "toy", trials=8)
    record = toy.searched(again)
    assert len(record.trials) == len(open_study(str(searched.folder))[1].trials) + 2


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ('  File "/home/me/my code/search/worker.py", line 3', '  File ".../worker.py", line 3'),
        ("CheckpointError: /data/models/x: no such file", "CheckpointError: .../x: no such file"),
        ("see https://host/a/b, or ./a/b and a/b/c", "see https://host/a/b, or ./a/b and a/b/c"),
        ("'/a b/c d.txt' is gone", "'.../c d.txt' is gone"),
        ("1/2 of items", "1/2 of items"),
    ],
)
def test_of_an_absolute_path_in_an_error_the_last_name_is_left(text: str, plain: str) -> None:
    assert without_places(text) == plain


@pytest.mark.parametrize(
    ("reference", "name"),
    [
        ("/data/models/m", "../../data/models/m"),
        ("/data/models/m@v1+/data/lora", "../../data/models/m@v1+../../data/lora"),
        ("org/name", "org/name"),
        ("models/m", "models/m"),
        ("/home", "../../home"),
    ],
)
def test_a_model_gets_its_path_from_the_study_files_folder_and_keeps_its_last_name(
    reference: str, name: str
) -> None:
    assert renamed([reference], Path("/home/study")).get(reference, reference) == name


def test_a_name_that_begins_like_a_models_is_another_ones() -> None:
    change = Portable({}, {"/data/m": "../m"}, {}, ())
    found = change.plain({"parent:/data/m": ["/data/m", "/data/m2", "/data/m/config.json"]})
    assert found == {"parent:../m": ["../m", "/data/m2", "../m/config.json"]}


def test_parents_have_the_bundles_names_in_what_is_packed_too() -> None:
    sums, ids = {"/data/m": {"w": 2**63}, "org/x": {}}, {"search": {"t": ["/data/m"]}}
    change = Portable({}, {"/data/m": "../m"}, {}, ())
    found = change.attributes({"tensors": packed_sums(sums), "items": packed_ids(ids)})
    assert unpacked_sums(found["tensors"], []) == {"../m": {"w": 2**63}, "org/x": {}}
    assert found["items"] == packed_ids(ids)
    assert change.attributes({"tensors": "broken"}) == {"tensors": None}


def test_out_must_end_in_zip_and_what_is_there_stays(searched: StudySpec, tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match=r"ends in \.zip"):
        write(str(searched.folder), tmp_path / "toy.tar", texts=False)
    out = tmp_path / "toy.zip"
    out.write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(OutputExistsError):
            write(str(searched.folder), out, texts=False, overwrite=overwrite)
    assert out.read_text() == "mine"
    out.unlink()
    bundled(searched, out)
    bundled(searched, out, overwrite=True)


def test_texts_of_a_public_data_set_go_along_by_its_licence_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    cards = {"a/free": "cc-by-4.0", "a/share": "cc-by-sa-4.0", "a/none": None}
    for name, licence in cards.items():
        folder = tmp_path / name
        folder.mkdir(parents=True)
        head = f"---\nlicense: {licence}\n---\n" if licence else "no head"
        (folder / "README.md").write_text(head)

    def found(source: str, file: str, *, repo_type: str) -> str | None:
        assert repo_type == "dataset"
        return str(tmp_path / source / file) if source in cards else None

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", found)
    allowed = {x: allowed_by(x)[0] for x in ("", None, "a/free", "a/share", "a/none", "a/gone")}
    assert [source for source, yes in allowed.items() if yes] == ["", "a/free"]
    assert "cc-by-sa-4.0" in allowed_by("a/share")[1]
    assert "states no licence" in allowed_by("a/gone")[1]


def test_an_address_has_no_card_in_the_cache() -> None:
    assert licence_of("https://host/data.jsonl") is None


def test_texts_whose_tasks_cannot_be_opened_are_an_error_that_says_what_to_do(
    searched: StudySpec, tmp_path: Path
) -> None:
    with pytest.raises(MergeError, match="--no-texts"):
        write(str(searched.folder), tmp_path / "toy.zip")
    assert not (tmp_path / "toy.zip").exists()


def test_a_password_in_a_stored_study_file_is_not_in_a_bundle(study: Study, tmp_path: Path) -> None:
    spec = study()
    record = open_for(spec)
    about = about_of(spec, bench := toy.Toy(spec))
    about["study"] = {**about["study"], "storage": "postgresql://me:secret@host/db"}
    with record.writing():
        record.begin({**about, "folder": ".."}, bench.tasks.item_ids())
    write(spec.storage, out := tmp_path / "toy.zip", texts=False)
    with zipfile.ZipFile(out) as source:
        assert not [n for n in source.namelist() if b"secret" in source.read(n)]
        assert not [n for n in source.namelist() if b"postgresql" in source.read(n)]


def test_the_database_of_a_bundle_is_an_optuna_study(searched: StudySpec, tmp_path: Path) -> None:
    files = bundled(searched, tmp_path / "toy.zip")
    (tmp_path / "it.db").write_bytes(files["study.db"])
    study = optuna.load_study(study_name="toy", storage=f"sqlite:///{tmp_path / 'it.db'}")
    assert study.best_value == max(t.value or 0 for t in open_record(searched.storage).trials)
    connection = sqlite3.connect(tmp_path / "it.db")
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()


def test_answers_to_tasks_without_texts_stay_at_home() -> None:
    change = Portable({}, {}, {}, {"hub"})
    kept = packed("report", {x: [Answer("a", "b", "c")] for x in ("own", "hub")})
    found = change.attributes({"answers:3": kept, "answers:4": 7})
    assert unpacked(found["answers:3"]) == {"own": [Answer("a", "b", "c")]}
    assert found["answers:4"] is None
    said = {"winner": 1, "parent": 2, "tasks": {"own": {"gained": []}, "hub": {"gained": []}}}
    found = change.attributes({"samples": said, "runs": [{"host": "box", "pid": 3, "time": 1}]})
    assert found["samples"]["tasks"] == {"own": {"gained": []}}
    assert found["runs"] == [{"host": "", "pid": 3, "time": 1}]


def test_the_digest_of_a_renamed_winner_is_that_of_its_recipe(study: Study, tmp_path: Path) -> None:
    text = toy.SHORT.replace("org/one", str(tmp_path / "one"))
    spec = study(text)
    spec.folder.joinpath("study.yaml").write_text(text)
    points = {n.replace("org/one", str(tmp_path / "one")): p for n, p in toy.PARENTS.items()}
    record = toy.searched(spec, toy.Toy(spec, parents=points))
    digest = record.trial(5).recipe.digest()
    with record.writing():
        record.said.keep_samples(5, 1, {})
        record._stored.set("noted", {"recipe_digest": digest})
    bundled(spec, out := tmp_path / "toy.zip")
    _, found = open_study(str(out))
    now = found.trial(5).recipe.digest()
    assert now != digest
    assert found.stored.attributes()["noted"] == {"recipe_digest": now}
    assert replace(found.trial(5), recipe=record.trial(5).recipe) == record.trial(5)


def test_a_name_says_which_study_of_a_storage_is_bundled(tmp_path: Path) -> None:
    for name in ("one", "two"):
        text = toy.STUDY.replace("name: toy", f"name: {name}")
        text += f"storage: sqlite:///{tmp_path / 'both.db'}\n"
        answers = iter([False, False, True])
        toy.searched(toy.spec_of(text, tmp_path / name), stop=lambda answers=answers: next(answers))
    url, out = f"sqlite:///{tmp_path / 'both.db'}", tmp_path / "two.zip"
    write(url, out, texts=False, name="two")
    assert open_study(str(out))[1].name == "two"
    assert open_study(str(out), "two")[1].name == "two"
    with pytest.raises(MergeError, match="no study 'one'"):
        open_study(str(out), "one")


def test_a_study_in_a_journal_is_a_bundle_like_any_other(tmp_path: Path) -> None:
    made = []
    for kind in ("sqlite", "journal"):
        folder = tmp_path / kind
        spec = toy.spec_of(f"{toy.STUDY}storage: {kind}:///{folder / 'study.x'}\n", folder)
        folder.mkdir()
        (folder / "study.yaml").write_text(f"{toy.STUDY}storage: {kind}:///study.x\n")
        answers = iter([False, False, True])
        toy.searched(spec, stop=lambda answers=answers: next(answers))
        write(str(folder), folder / "toy.zip", texts=False)
        made.append(open_study(str(folder / "toy.zip"))[1])
    assert toy.kept(made[0].trials) == toy.kept(made[1].trials)
    assert made[0].item_ids("report") == made[1].item_ids("report")


@pytest.mark.slow
def test_a_study_on_a_server_is_a_file_without_its_password(
    postgres: Server, tmp_path: Path
) -> None:
    url = postgres.database()
    spec = toy.spec_of(f"{toy.STUDY}storage: {url}\n", tmp_path / "study")
    answers = iter([False, False, True])
    record = toy.searched(spec, stop=lambda: next(answers))
    write(url, out := tmp_path / "toy.zip", texts=False)
    assert open_study(str(out))[1].trials == record.trials
    with zipfile.ZipFile(out) as source:
        for name in source.namelist():
            data = source.read(name)
            assert b"SECRET" not in data, name
            assert b"postgresql" not in data, name
            assert str(tmp_path).encode() not in data, name


def test_files_that_are_called_as_the_bundles_own_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "study"
    folder.mkdir()
    rows = "".join(f'{{"q": "{i}?", "answer": "{i}"}}\n' for i in range(9))
    (folder / "summary.json").write_text(rows)
    (folder / "own.jsonl").write_text(rows)
    for file, refused in (("summary.json", False), ("../study/own.jsonl", False), (".", True)):
        entry = {"evaluator": "exact_match", "file": file, "prompt": "{{ q }}"}
        text = f"{toy.STUDY.partition('score:')[0]}score:\n  - {json.dumps(entry)}\n"
        spec = toy.spec_of(text, folder)
        if refused:
            with pytest.raises(MergeError, match=r"is called as a file of the bundle's own"):
                inputs_of(spec, "toy", [], texts=True)
        else:
            found = inputs_of(spec, "toy", [], texts=True)
            name = f"files/1/{Path(file).name}"
            assert found.files == {name: folder / file}
            assert found.data["score"][0]["file"] == name


def test_routers_that_were_trained_go_along(tmp_path: Path) -> None:
    spec = toy.spec_of(toy.STUDY, tmp_path)
    (tmp_path / "results" / "gates").mkdir(parents=True)
    (tmp_path / "results" / "gates" / "ab.safetensors").write_bytes(b"routers")
    experts = [{"source_model": "org/one"}, {"source_model": "org/two"}]
    moe = {"gate_mode": "trained", "experts": experts}
    recipes = []
    for gates in ("results/gates/ab.safetensors", "results/gates/gone.safetensors"):
        plain = {
            "merge_method": "linear",
            "models": [{"model": "org/one", "parameters": {"weight": 1}}],
        }
        problems: list[Any] = []
        made = recipe_reader.parse({**plain, "moe": {**moe, "gates": gates}}, "recipe", problems)
        assert made is not None, problems
        recipes.append(made)
    found = inputs_of(spec, "toy", recipes, texts=True)
    assert [*found.files] == ["results/gates/ab.safetensors"]
    assert [*found.left] == ["gone.safetensors"]


@pytest.mark.parametrize(
    "prior", ["../..", "postgresql://me:pw@host/db", "/data/other", "../other"]
)
def test_where_a_prior_lies_is_not_said(tmp_path: Path, prior: str) -> None:
    spec = toy.spec_of(toy.STUDY, tmp_path, prior=prior)
    said = inputs_of(spec, "toy", [], texts=True).data["search"]["prior"]
    assert said in ("another-study", "other")
    assert not leads_out(said)


def test_a_full_disk_is_one_line_and_leaves_nothing(
    searched: StudySpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "/tmp/x")

    monkeypatch.setattr("search.bundle.write.shutil.copyfile", full)
    with pytest.raises(OutputError, match="cannot be written: No space left on device"):
        write(str(searched.folder), tmp_path / "toy.zip", texts=False)
    assert not [*tmp_path.iterdir()]


def test_what_nobody_could_open_is_refused_when_it_is_written(
    searched: StudySpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "MOST_BYTES", 1000)
    with pytest.raises(MergeError, match="expected at most 1000 bytes"):
        write(str(searched.folder), tmp_path / "toy.zip", texts=False)
    assert not [*tmp_path.iterdir()]
