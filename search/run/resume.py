"""Whether what a storage holds is this study: its file, its parents' weights, its tasks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from merge_core.errors import MergeError
from search.run.environment import entered
from search.run.prior import check_fresh
from search.scoring.pools import described
from search.spec.changes import ChangedStudyError, Difference, changes, differing
from search.spec.sections import Items
from search.spec.storage_url import masked
from search.spec.study_file import StudySpec
from search.storage.about import FORMAT, REPORT
from search.storage.open import open_record
from search.storage.stored import to_stderr
from search.storage.study_record import Record
from search.trial.tasks import Tasks
from search.trial.worker import Bench

OF_REPORT = ("pools", "clusters", "facts", "grown")  # of what all trials share
PARTS = {  # of what all trials share -> the word for it
    "tasks": "tasks",
    "score": "shares of tasks in groups",
    "pools": "items",
    "clusters": "clusters of items",  # is there where a task has some
    "steering": "tasks that steer the search",  # is there where something steers
    "baselines": "baselines",
}


def open_for(
    spec: StudySpec,
    notice: Callable[[str], None] = to_stderr,
    stop: Callable[[], bool] = lambda: False,
) -> Record:
    """Open the study's record for writing, and make sure that it is this study's.

    Args:
        spec: The study.
        notice: Is told when its storage is away, and what was mended in it.
        stop: Asked, while it is away, whether to wait no more.

    Raises:
        ChangedStudyError: The study began with another study file, and what defines its scores is
            among what changed; the key paths are listed.
        MergeError: It was not written by mergetune.
    """
    record = opened(spec, notice, stop)
    check_begun(spec, record)
    return record


def check_begun(spec: StudySpec, record: Record) -> None:
    """Refuse a record that is not this study's.

    Raises:
        ChangedStudyError: See ``open_for``.
        MergeError: It was not written by mergetune.
    """
    about = record.about
    if about is not None:
        changed = [str(found) for found in _changes(spec, about) if not found.may]
        if changed:
            raise ChangedStudyError(
                f"study {record.name!r} in {record.url} began with another study file; changed: "
                f"{'; '.join(changed)}. Change it back, or start anew: --fresh keeps what is "
                "there as another study"
            )
    elif record.trials or record.objectives != _objectives(spec):
        error = MergeError if record.trials or record.stored.attributes() else ChangedStudyError
        raise error(f"study {record.name!r} in {record.url} was not written by mergetune")


def opened(
    spec: StudySpec, notice: Callable[[str], None], stop: Callable[[], bool] = lambda: False
) -> Record:
    """Open the study's record for writing, whatever it holds; arguments as above."""
    return open_record(
        spec.storage,
        spec.name,
        create=True,
        objectives=_objectives(spec),
        unnamed=spec.unnamed,
        variables=spec.variables,
        notice=notice,
        stop=stop,
    )


def _objectives(spec: StudySpec) -> int:
    return len(spec.scores) if spec.aggregate == "apart" else 1


def _changes(spec: StudySpec, about: Mapping[str, Any]) -> list[Difference]:
    stored = about["study"]
    if "storage" in stored:  # written by an earlier version, maybe with its password
        stored = {**stored, "storage": masked(stored["storage"])}
    return changes(stored, dict(spec.data), about["threads"])


def about_of(
    spec: StudySpec, bench: Bench, facts: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return what all trials share, as it is stored when a study begins.

    Args:
        spec: The study.
        bench: Has it open.
        facts: Of the machine that does the jobs, if they are known.
    """
    tasks, machine = bench.tasks.about(), dict(facts or bench.facts())
    machine.pop("environment")  # of a run, not of the study
    machine.pop("tensors")  # which are stored apart
    return {
        "format": FORMAT,
        "study": dict(spec.data),
        "parents": machine.pop("parents"),
        **tasks,
        "baselines": {name: recipe.plain() for name, recipe in spec.recipes.items()},
        **({"race": bench.track.plain()} if bench.track else {}),
        **machine,
    }


def carried(spec: StudySpec, record: Record) -> dict[str, Any] | None:
    """Return what is stored of a study's beginning, with what its file adds by now.

    That are baselines, and a larger report pool: ``grown`` has how many report items were asked for
    before.
    """
    about = record.about
    if about is None:
        return None
    known = about["baselines"]
    added = {name: recipe.plain() for name, recipe in spec.recipes.items() if name not in known}
    was = Items(**(about["study"].get("items") or {})).report
    more = [was] if was != spec.items.report else []
    grown = [*about.get("grown", []), *more]
    return {**about, "baselines": {**known, **added}, **({"grown": grown} if grown else {})}


def begin_or_check(
    spec: StudySpec, record: Record, bench: Bench, *, accept: bool = False
) -> list[str]:
    """Store what all trials share, or compare it with what is stored; and store the run.

    Args:
        spec: The study.
        record: Where it is stored.
        bench: Has it open; is told which engine its scores are to come from.
        accept: Whether the environment may be another one than the study's.

    Returns:
        Sentences on what changed and may, on what is not compared, or may change a score.

    Raises:
        ChangedStudyError: Parents, tasks or environment are not those that the study began with.
    """
    facts = bench.facts()
    about, now = record.about, about_of(spec, bench, facts)
    folder, notices = record.path_to(spec.folder), []
    if about is None:
        record.begin({**now, "folder": folder}, bench.tasks.item_ids(), facts["tensors"])
    else:
        _check_same(about, now, bench, record.name)
        notices = _moves(spec, record, about)
    here = entered(record, facts["environment"], accept=accept, workers=bench.count)
    if about is not None and (notices or about["format"] != FORMAT):
        _go_on(spec, record, bench, now, facts["tensors"])
    record.keep_run(here.run)
    bench.expect(here.engine)
    return [*notices, *_older(about or now), *here.notices]


def _go_on(
    spec: StudySpec, record: Record, bench: Bench, now: Mapping[str, Any], sums: Mapping[str, Any]
) -> None:
    """Store the study's file as it is now, and what it has added, in one commit."""
    about = record.about
    assert about is not None
    said = {"folder": record.path_to(spec.folder), "study": dict(spec.data)}
    parents = {**now["parents"], **about["parents"]}
    more = {"parents": parents, "baselines": {**now["baselines"], **about["baselines"]}}
    if "behaviour" in about:
        more["behaviour"] = {**now["behaviour"], **about["behaviour"]}
    grows = _grows(about, now)
    if grows:
        check_fresh(spec, bench)
        more |= {key: now[key] for key in OF_REPORT if key in now}
    new = {name: sums[name] for name in parents if name not in about["parents"]}
    record.begin(
        {**about, **said, **more},
        bench.tasks.item_ids() if grows else None,
        {**record.tensor_sums, **new} if new and record.tensor_sums else None,
    )


def _grows(about: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    return len(now.get("grown", ())) > len(about.get("grown", ()))


def _before_growth(
    about: Mapping[str, Any], now: Mapping[str, Any], tasks: Tasks
) -> Mapping[str, Any]:
    """Return what ``about_of`` would, of the first report items: those that the study had."""
    if not _grows(about, now):
        return now
    had = {task: found["items"] for task, found in about["pools"][REPORT].items()}
    ids = tasks.item_ids()[REPORT]
    first = {task: described(found[: had.get(task, 0)]) for task, found in ids.items()}
    found = {**now, "pools": {**now["pools"], REPORT: first}}
    if "clusters" in now:
        numbers = now["clusters"][REPORT].items()
        cut = {task: some[: had.get(task, 0)] for task, some in numbers}
        found["clusters"] = {**now["clusters"], REPORT: cut}
    return found


def _check_same(about: Mapping[str, Any], now: Mapping[str, Any], bench: Bench, name: str) -> None:
    """Refuse other parents, other files that decide how candidates behave, other tasks.

    Parents and baselines that are new are nobody's.
    """
    now = _before_growth(about, now, bench.tasks)
    added = {f"{x}/config.json" for x in now["parents"] if x not in about["parents"]}
    known = {name: now["baselines"].get(name) for name in about["baselines"]}
    behaviour = {k: x for k, x in now["behaviour"].items() if k not in added}
    now = {**now, "baselines": known, "behaviour": behaviour}
    others = bench.builder.changed_parents(about)
    if others:
        raise ChangedStudyError(
            f"the weights of {', '.join(others)} are not those that study {name!r} began with; "
            f"put them back, or start anew (--fresh)"
        )
    was = about.get("behaviour")
    others = [] if was is None else _unlike(was, now["behaviour"])
    if others:
        raise ChangedStudyError(
            f"{', '.join(others)} changed since study {name!r} began, and with it how its "
            f"candidates answer; put it back, or start anew (--fresh)"
        )
    for key, what in PARTS.items():
        if now.get(key) != about.get(key):
            which = ", ".join(_unlike(about.get(key), now.get(key)))
            raise ChangedStudyError(
                f"the {what} of study {name!r} are not those it began with"
                f"{f' ({which})' if which else ''}; {_advice(about, now)}"
            )


def _unlike(was: Any, now: Any) -> list[str]:
    """Return the keys of two mappings whose values differ."""
    was, now = ({} if found is None else found for found in (was, now))
    if not (isinstance(was, Mapping) and isinstance(now, Mapping)):
        return []
    return differing(was, now)


def _moves(spec: StudySpec, record: Record, about: Mapping[str, Any]) -> list[str]:
    """Return what of a study file changed, and where it lies, a sentence for each."""
    folder = record.path_to(spec.folder)
    notices = [f"{found}: {found.why}" for found in _changes(spec, about)]
    if about["folder"] != folder:
        notices.append(
            f"folder was {about['folder']!r}, is {folder!r}: where the study file is, seen from "
            "its database"
        )
    return notices


def _advice(about: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    if "clusters" in now and "clusters" not in about:
        by = ", ".join(f"`{key}` of {task}" for task, key in now["clusters"]["by"].items())
        return f"items of one cluster ({by}) were in several pools; start anew (--fresh)"
    return "put them back, or start anew (--fresh)"


def _older(about: Mapping[str, Any]) -> list[str]:
    """Say what becomes of a study that an earlier version has begun."""
    notices = []
    if about["format"] != FORMAT:
        notices.append(
            f"the study began in format {about['format']}: what is new is stored in format "
            f"{FORMAT}, which earlier versions of mergetune do not read"
        )
    if "behaviour" not in about:
        notices.append(
            "the study began with an earlier version, which noted neither configs nor tokenizer: "
            "they are not compared"
        )
    return notices
