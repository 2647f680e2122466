"""A model folder to the Hugging Face hub, by huggingface_hub."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from merge_core.errors import OutputError, ParameterError

TOKEN = "HF_TOKEN"  # the environment variable; nothing else is looked at
T = TypeVar("T")


@dataclass(frozen=True)
class Target:
    """Where a folder goes: a model repository that is there, or will be made."""

    repo: str  # owner and name
    url: str
    private: bool  # what a new one will be
    new: bool
    token: str = field(repr=False)  # in no traceback

    def upload(self, folder: Path) -> str:
        """Upload all files of a folder in one commit; return its address.

        A new repository is private. Files of other names that are there stay.

        Raises:
            OutputError: The hub does not take it; the folder stays as it is.
        """
        api = _api(self.token)

        def send() -> str:
            api.create_repo(self.repo, private=True, exist_ok=True)
            commit = api.upload_folder(
                repo_id=self.repo, folder_path=folder, commit_message="Upload a merge by mergetune"
            )
            return str(commit.commit_url)

        why = f"{folder}: is whole, and not uploaded to {self.repo}"
        return _asked(send, why, f"upload it with: hf upload {self.repo} {folder}")


def target(repo: str, environment: Mapping[str, str] = os.environ) -> Target:
    """Look up where a folder would go, with the token that the environment holds.

    Args:
        repo: ``owner/name``, or ``name`` in the token's own account.
        environment: Has ``HF_TOKEN``.

    Raises:
        ParameterError: It is no repository's name, there is no token, or the hub is not to be
            asked (``HF_HUB_OFFLINE``).
        OutputError: The hub does not know the token, or does not answer.
    """
    import huggingface_hub as hub
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise ParameterError(f"--push {repo}: expected owner/name: {_first_line(error)}") from error
    if hub.is_offline_mode():
        raise ParameterError(f"--push {repo}: HF_HUB_OFFLINE is set; unset it to upload")
    token = environment.get(TOKEN, "").strip()
    if not token:
        raise ParameterError(
            f"--push {repo}: no token; put one that may write into the environment as {TOKEN}"
        )
    api, why = _api(token), f"--push {repo}: nothing is merged"
    owner = _asked(lambda: api.whoami()["name"], why, f"is {TOKEN} a valid token?")
    full = repo if "/" in repo else f"{owner}/{repo}"
    there = _asked(lambda: api.repo_exists(full), why, "try again")
    private = True
    if there:
        private = bool(_asked(lambda: api.model_info(full), why, "try again").private)
    return Target(full, f"{api.endpoint}/{full}", private, not there, token)


def _api(token: str) -> Any:
    import huggingface_hub as hub

    return hub.HfApi(token=token, library_name="mergetune")


def _asked(ask: Callable[[], T], why: str, advice: str) -> T:
    try:
        return ask()
    except Exception as error:  # the hub's, those of the library below it, OSError, ValueError, ...
        raise OutputError(f"{why}: {_first_line(error)}; {advice}") from error


def _first_line(error: BaseException) -> str:
    """Return what an error says, or what it came from where that is what tells."""
    lines = [line for one in (error, error.__cause__) if one for line in str(one).splitlines()]
    said = dict.fromkeys(line.strip().rstrip(".") for line in lines if line.strip())
    return ": ".join([*said][:2])[:300] or type(error).__name__
