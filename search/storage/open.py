"""Where a study's database is opened."""

from __future__ import annotations

from pathlib import Path

from merge_core.errors import UnknownNameError
from search.storage.study_record import SQLITE, Record, folder_of


def open_record(
    url: str, name: str | None = None, *, create: bool = False, objectives: int = 1
) -> Record:
    """Open a study.

    Args:
        url: Optuna storage URL.
        name: Of the study; None takes the only one that mergetune wrote there.
        create: Make storage and study if they do not exist.
        objectives: How many a study has that is made.

    Raises:
        UnknownNameError: There is no such storage or study, or several to choose from.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    _check_file(url, create)
    if create:
        assert name is not None
        study = optuna.create_study(
            storage=url,
            study_name=name,
            directions=["maximize"] * objectives,
            load_if_exists=True,
        )
        return Record(study, url)
    storage = optuna.storages.RDBStorage(url)  # opened once: it reads Optuna's migrations each time
    names = optuna.get_all_study_names(storage)
    if name is None and len(names) == 1:
        name = names[0]
    if name not in names:
        wanted = f"no study {name!r}" if name else "no single study"
        raise UnknownNameError(f"{url} has {wanted}; it has {', '.join(names) or 'none'}")
    return Record(optuna.load_study(storage=storage, study_name=name), url)


def _check_file(url: str, create: bool) -> None:
    folder = folder_of(url)
    if folder is None:
        return
    if create:
        folder.mkdir(parents=True, exist_ok=True)
    elif not Path(url.removeprefix(SQLITE)).is_file():
        raise UnknownNameError(f"{url}: no such file; `mergetune run` the study first")
