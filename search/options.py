"""What the commands of the command line take, as far as several take it or it needs many words."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from evaluators import plugin_file
from evaluators.harness import task_files
from evaluators.jsonl.judge_key import send_keys
from merge_core import consent
from merge_core.errors import ParameterError
from merge_core.kernels.device import check_device
from merge_core.kernels.threads import use
from merge_core.output import gguf_export
from merge_core.output.safetensors_writer import SHARD_BYTES
from search.samplers.plugin_file import READERS

Study = Annotated[
    str,
    typer.Argument(
        help="A study file, its folder, a bundle (.zip), or a storage URL; maybe with #NAME."
    ),
]


def _named(name: str | None) -> str | None:
    if name is not None and not name.strip():
        raise typer.BadParameter("expected the name of a study, got none")
    return name


Name = Annotated[
    str | None,
    typer.Option(
        "--name",
        metavar="N",
        callback=_named,
        help="Which study, of several in a storage; or STUDY#N.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace OUT if mergetune wrote it.")]


def _set_threads(count: int | None) -> int | None:
    if count is not None:
        use(count)
    return count


def _bytes(text: str) -> int:
    """Return a size such as 500MB, 5GB or 2GiB in bytes."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(i?)B?", text.strip(), re.IGNORECASE)
    size = 0
    if found is not None:
        power = " KMGT".index(found[2].upper() or " ")
        size = int(float(found[1]) * (1024 if found[3] else 1000) ** power)
    if size < 1:
        raise typer.BadParameter(f"expected a size such as 500MB, 5GB or 2GiB, got {text!r}")
    return size


Threads = Annotated[
    int | None,
    typer.Option("--threads", min=1, callback=_set_threads, help="Of the CPU; else torch's own."),
]
ShardSize = Annotated[
    int,
    typer.Option("--shard-size", metavar="SIZE", parser=_bytes, help="Most of one weights file."),
]
SIZE: Any = f"{SHARD_BYTES // 10**9}GB"  # as it would be typed: typer parses defaults, too


def _device(name: str | None) -> str | None:
    if name is None:
        return None
    kind, _, number = name.partition(":")
    if not (name == "cpu" or (kind == "cuda" and (name == kind or number.isdigit()))):
        raise typer.BadParameter(f"expected cpu, cuda or cuda:N, got {name!r}")
    if name != "cpu":
        check_device(name, "--device")
    return name


Device = Annotated[
    str,
    typer.Option("--device", callback=_device, help="Where tensors are merged: cpu, cuda, cuda:N."),
]
DeviceOrOwn = Annotated[
    str | None,
    typer.Option(
        "--device",
        callback=_device,
        help="Where it is measured: cpu, cuda, cuda:N; else on the CPU, layers as the study says.",
    ),
]
PushTo = Annotated[
    str | None,
    typer.Option(
        "--push",
        metavar="REPO",
        help="Ask, and upload OUT to this repository of the hub, private if new; needs HF_TOKEN.",
    ),
]
Seed = Annotated[
    int | None, typer.Option("--seed", min=0, help="Of random masks, instead of the recipe's own.")
]
Quiet = Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")]
Forecasted = Annotated[
    bool, typer.Option("--dry-run", help="Say what it will read, write and need; write nothing.")
]
Gguf = Annotated[bool, typer.Option("--gguf", help="Write a GGUF file into OUT, too.")]
Quant = Annotated[
    gguf_export.Quant | None,
    typer.Option("--quant", help="How --gguf packs weights; q8_0 if not said."),
]


def packed(gguf: bool, quant: gguf_export.Quant | None) -> gguf_export.Quant | None:
    """Return how a GGUF file is packed; None: none is asked for.

    Raises:
        ParameterError: It is said how to pack none.
    """
    if quant is not None and not gguf:
        raise ParameterError(f"--quant {quant}: goes with --gguf; say that, too")
    return (quant or "q8_0") if gguf else None


def _load_plugins(files: list[Path] | None) -> list[Path]:
    for file in files or []:
        plugin_file.load(file, READERS)
    return files or []


Plugins = Annotated[
    list[Path] | None,
    typer.Option(
        "--plugin",
        callback=_load_plugins,
        help="A Python file of yours that declares evaluators or samplers.",
    ),
]
TrustTasks = Annotated[
    bool,
    typer.Option(
        "--trust-tasks",
        callback=lambda trusted: task_files.trust_tasks() if trusted else None,
        help="Run code that lm-eval task files of yours name under !function.",
    ),
]


def _consent(flag: str, help_text: str) -> Any:
    """Return the option by which the user allows something in this process."""

    def allow(given: bool) -> None:
        if given:
            consent.allow(flag)

    return typer.Option(flag, callback=allow, help=help_text)


AllowCrimes = Annotated[
    bool,
    _consent(
        consent.CRIMES,
        "Merge models of unlike architectures whose tensors have the same names and shapes.",
    ),
]
TrustCode = Annotated[
    bool,
    _consent(
        consent.CODE, "Run the code that a model's folder brings for its class and its tokenizer."
    ),
]
SendKeys = Annotated[
    list[str] | None,
    typer.Option(
        "--send-key",
        metavar="NAME=HOST",
        callback=lambda pairs: send_keys(pairs or ()),
        help="Send a judge's key (api_key_env), or a variable of `storage:`, to this host.",
    ),
]
InAll = Annotated[
    int | None, typer.Option(help="End after so many in all, instead of search.trials.")
]
More = Annotated[
    int | None, typer.Option(help="Search so many more, whatever ended the search before.")
]
Hours = Annotated[
    float | None, typer.Option(help="All trials may take so long, instead of search.hours.")
]
Priors = Annotated[
    list[str] | None,
    typer.Option(
        "--prior",
        metavar="STUDY",
        help="Another study that may have reported on the same items; may be repeated.",
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(min=1, help="Build and score so many candidates at a time, each in a process."),
]
AcceptEnvironment = Annotated[
    bool,
    typer.Option(
        "--accept-environment",
        help="Go on with other libraries, or on another device, than the study has run with.",
    ),
]
Force = Annotated[
    bool,
    typer.Option("--force", help="Search even where all baselines score the same."),
]
Fresh = Annotated[
    bool,
    typer.Option("--fresh", help="Start over; what is stored is kept, as study NAME.before-1."),
]
Callbacks = Annotated[
    list[str] | None,
    typer.Option(
        "--callback",
        metavar="NAME",
        help="Also tell wandb, mlflow, tensorboard or a plugin how the run goes; may be repeated.",
    ),
]
Ray = Annotated[
    str | None,
    typer.Option(metavar="ADDRESS", help="Workers are actors of a Ray cluster; `local`: its own."),
]
RayCpus = Annotated[
    float | None, typer.Option(min=0.01, help="CPUs of the cluster that each worker takes.")
]
Strict = Annotated[
    bool, typer.Option("--strict", help="Refuse what a recipe says in vain, which is a warning.")
]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        help="Score the base on a few items: what does it say, and what will the study cost?",
    ),
]
NoTasks = Annotated[
    bool, typer.Option("--no-tasks", help="Do not open tokenizers and tasks; needs no torch.")
]
Inspected = Annotated[
    str, typer.Argument(metavar="RECIPE", help="A recipe; with --layers also a study or a model.")
]
Layers = Annotated[
    bool, typer.Option("--layers", help="Measure which layers of the models matter, on texts.")
]
Texts = Annotated[
    Path | None, typer.Option(help="Texts for --layers, instead of a study's search items.")
]
Html = Annotated[
    Path | None, typer.Option(dir_okay=False, help="Also write heat maps into this file.")
]
Config = Annotated[
    Path, typer.Argument(help="A configuration of mergekit-moe, or a recipe with moe.")
]
Out = Annotated[Path, typer.Argument(help="The model folder to make.")]
OutOrNone = Annotated[
    Path | None, typer.Argument(help="The model folder to make; none with --seeds.")
]
Seeds = Annotated[
    int | None,
    typer.Option(
        "--seeds",
        min=2,
        help="Write nothing: merge with so many seeds, and say how far they differ.",
    ),
]
ScoredBy = Annotated[
    Path | None,
    typer.Option(
        "--score", metavar="STUDY", help="With --seeds: also score them by this study file's tasks."
    ),
]
StudyOut = Annotated[
    Path, typer.Option("--out", help="The study file to write (.yaml), or its folder.")
]
Asks = Annotated[
    list[str] | None, typer.Option("--task", help="An lm-eval task or group; may be repeated.")
]
Files = Annotated[
    list[Path] | None,
    typer.Option("--file", help="Questions or texts of yours, in JSON lines; may be repeated."),
]
IncludePath = Annotated[
    Path | None, typer.Option("--include-path", help="A folder of lm-eval task files of yours.")
]
Trials = Annotated[int, typer.Option("--trials", min=1, help="How long to search.")]
NotOpened = Annotated[
    bool, typer.Option("--no-tasks", help="Do not open the tasks to count their items.")
]
