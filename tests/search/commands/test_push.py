"""``--push``: asked for before anything is merged, and done when the folder is whole."""

from __future__ import annotations

import io
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import huggingface_hub
import pytest
import yaml

from merge_core.errors import OutputError, ParameterError
from merge_core.output.hub_upload import target
from search.commands import push
from tests.merge_core.mixture.mixtures import mixture
from tests.merge_core.output.fake_hub import COMMIT, TOKEN, running
from tests.merge_core.recipes import DARE_TIES

# huggingface_hub's way to send a file
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
PRIVATE = "/me/merged: will be made, and private\n"


@pytest.fixture
def hub(monkeypatch):
    with running() as found:
        for name, value in (("ENDPOINT", found.url), ("HF_HUB_OFFLINE", False)):
            monkeypatch.setattr(huggingface_hub.constants, name, value)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield found


@pytest.fixture
def says(monkeypatch):
    """Return what types an answer, where there is a terminal."""

    def type_in(text):
        monkeypatch.setattr(push, "can_ask", lambda: True)
        monkeypatch.setattr(sys, "stdin", io.StringIO(text))

    return type_in


@pytest.fixture
def recipe(own_family):
    file = own_family("llama") / "recipe.yaml"
    file.write_text(DARE_TIES)
    return file


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        file.relative_to(folder).as_posix(): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file()
    }


def test_merge_asks_and_uploads_the_whole_folder_into_a_private_repository(
    mergetune, recipe, hub, says, tmp_path
):
    says("y\n")
    out = tmp_path / "out"
    code, text, err = mergetune("merge", recipe, out, "--push", "me/merged")
    assert code == 0, err
    repo = hub.repos["me/merged"]
    assert repo["private"]
    assert repo["files"] == files_of(out)
    assert {"README.md", "model.safetensors", "recipe.yaml", "config.json"} <= repo["files"].keys()
    assert text.splitlines()[1] == f"{hub.url}/me/merged/commit/{COMMIT}"
    assert f"{hub.url}{PRIVATE}card and recipe name models by their paths here" in err
    assert "Merge, and upload it there? [y/N]" in err
    assert hub.tokens - {""} == {TOKEN}  # the library asks something without one
    assert TOKEN not in text + err
    assert not [name for name, data in repo["files"].items() if TOKEN.encode() in data]


def test_mixture_and_gguf_are_uploaded_too(mergetune, own_family, hub, says, tmp_path):
    says("y\n")
    file = own_family("llama") / "moe.yml"
    file.write_text(yaml.safe_dump(mixture(dtype="float32")))
    code, text, err = mergetune("moe", file, tmp_path / "out", "--push", "merged", "--json")
    assert code == 0, err
    assert json.loads(text)["uploaded"].endswith(f"/me/merged/commit/{COMMIT}")
    assert hub.repos["me/merged"]["files"] == files_of(tmp_path / "out")


def test_who_says_no_has_nothing_merged(mergetune, recipe, hub, says, tmp_path):
    for answer in ("n\n", "\n"):
        says(answer)
        code, _, _ = mergetune("merge", recipe, tmp_path / "out", "--push", "me/merged")
        assert code == 1
    assert not (tmp_path / "out").exists()
    assert not hub.repos


def test_a_public_repository_is_named_as_one_and_keeps_its_other_files(
    mergetune, recipe, hub, says, tmp_path
):
    hub.repos["me/merged"] = {"private": False, "files": {"notes.txt": b"mine"}}
    says("y\n")
    code, _, err = mergetune("merge", recipe, tmp_path / "out", "--push", "me/merged")
    assert code == 0
    assert "is there; files of the same names go; it is PUBLIC" in err
    assert hub.repos["me/merged"]["files"] == {"notes.txt": b"mine"} | files_of(tmp_path / "out")
    assert not hub.repos["me/merged"]["private"]


@pytest.mark.parametrize("where", ["/api/repos/create", "/preupload/", "/stored/", "/commit/"])
def test_what_the_hub_refuses_is_one_line_and_the_folder_stays(
    mergetune, recipe, hub, says, tmp_path, where
):
    hub.broken = where, 403, "You do not have the rights"
    says("y\n")
    out = tmp_path / "out"
    code, _, err = mergetune("merge", recipe, out, "--push", "me/merged", "--quiet")
    assert code == 1
    last = err.splitlines()[-1].partition("mergetune: ")[2]
    assert last.startswith(f"{out}: is whole, and not uploaded to me/merged: ")
    assert "403" in last
    assert last.endswith(f"; upload it with: hf upload me/merged {out}")
    assert "Traceback" not in err
    assert (out / "mergetune.json").is_file()


def test_a_token_that_the_hub_does_not_know_stops_before_the_merge(
    mergetune, recipe, hub, says, tmp_path, monkeypatch
):
    monkeypatch.setenv("HF_TOKEN", "hf_of_nobody")
    says("y\n")
    code, _, err = mergetune("merge", recipe, tmp_path / "out", "--push", "me/merged")
    assert code == 1
    assert err.startswith("mergetune: --push me/merged: nothing is merged: ")
    assert "is HF_TOKEN a valid token?" in err
    assert "hf_of_nobody" not in err
    assert not (tmp_path / "out").exists()


def test_without_a_terminal_nothing_is_asked_or_merged(mergetune, recipe, hub, tmp_path):
    code, _, err = mergetune("merge", recipe, tmp_path / "out", "--push", "me/merged")
    assert code == 1
    assert "there is no terminal; leave it out, and upload the folder with: hf upload" in err
    assert not hub.tokens
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("repo", "token", "offline", "rule"),
    [
        ("me/merged", "", False, "no token; put one that may write into the environment as HF_TOK"),
        ("me/merged", TOKEN, True, "HF_HUB_OFFLINE is set; unset it to upload"),
        ("me/mer ged", TOKEN, False, "expected owner/name: Repo id must use alphanumeric"),
        ("a/b/c", TOKEN, False, "expected owner/name: Repo id must be in the form"),
    ],
)
def test_what_cannot_be_a_target_is_refused(hub, monkeypatch, repo, token, offline, rule):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", offline)
    with pytest.raises(ParameterError, match=rule):
        target(repo, {"HF_TOKEN": token})
    assert not hub.tokens


def test_a_token_of_the_hubs_own_files_is_not_looked_at(hub, monkeypatch, tmp_path):
    (tmp_path / "token").write_text(TOKEN)
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    with pytest.raises(ParameterError, match="no token"):
        target("me/merged", {})


def test_a_target_does_not_show_its_token(hub):
    found = target("merged", {"HF_TOKEN": TOKEN})
    assert found.repo == "me/merged"
    assert TOKEN not in repr(found)


def test_a_hub_that_is_away_is_one_line(hub, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(OutputError, match=r"nothing is merged: .*Connection refused"):
        target("me/merged", {"HF_TOKEN": TOKEN})


def test_options_that_upload_nothing_are_refused(mergetune, recipe, tmp_path):
    for more in (["--dry-run"], ["--seeds", "2"]):
        where = [] if "--seeds" in more else [tmp_path / "out"]
        assert mergetune("merge", recipe, *where, "--push", "me/x", *more)[0] == 2


def test_the_question_is_asked_on_a_real_terminal(recipe, hub, tmp_path):
    """A process of its own, whose stdin and stderr are a terminal's."""
    ours, theirs = pty.openpty()
    program = Path(sys.executable).parent / "mergetune"
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0"}
    process = subprocess.Popen(
        [program, "merge", recipe, tmp_path / "out", "--push", "me/merged"],
        env=environment | {"HF_HUB_DISABLE_XET": "1", "HF_TOKEN": TOKEN},
        stdin=theirs,
        stderr=theirs,
        stdout=subprocess.PIPE,
    )
    os.close(theirs)
    os.write(ours, b"y\n")
    out, _ = process.communicate(timeout=120)
    shown = os.read(ours, 10**5).decode()
    os.close(ours)
    assert process.returncode == 0, shown
    assert "Merge, and upload it there? [y/N]" in shown
    assert TOKEN not in shown + out.decode()
    assert hub.repos["me/merged"]["files"] == files_of(tmp_path / "out")
