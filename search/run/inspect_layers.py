"""Which layers of a study's, a recipe's or one model matter; see ``trial/layer_distances``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluators.text.documents import read_documents
from merge_core.errors import MergeError
from merge_core.recipe.read import reading_of
from merge_core.recipe.yaml_document import Document, read_all
from search.spec import study_file
from search.spec.sections import Engine
from search.spec.study_file import StudySpec
from search.trial.backends import check_device, device_of
from search.trial.builder import Builder
from search.trial.layer_distances import Progress, distances, prompts
from search.trial.tasks import open_tasks

if TYPE_CHECKING:
    from evaluators.engines.hf.residual_stream import LayerDistances

TEXT = "text"  # key of a document in JSON lines or parquet


@dataclass(frozen=True)
class LayersFound:
    """What was measured, and on what."""

    texts: str  # where they are from
    models: Mapping[str, LayerDistances]  # by reference

    def plain(self) -> dict[str, Any]:
        """Return it as plain data, ready for JSON; layers and texts are counted from 0."""
        return {
            "texts": self.texts,
            "models": {
                name: {
                    "layers": found.layers,
                    "texts": found.texts,
                    "tokens": found.tokens,
                    "influence": list(found.influence),
                    "angular": [list(row) for row in found.angular],
                    "blocks": [
                        {"size": n, "first": first, "last": first + n - 1, "distance": row[first]}
                        for n, row in enumerate(found.angular, start=1)
                        for first in (found.best(n),)
                    ],
                }
                for name, found in self.models.items()
            },
        }


def inspect_layers(
    what: str,
    texts: Path | None,
    tell: Callable[[str], None],
    *,
    device: str | None = None,
    progress: Progress | None = None,
) -> LayersFound:
    """Measure the layers of every model that is named.

    Args:
        what: A study file, its folder, a recipe file, or a model reference.
        texts: What models read, see ``read_documents``; None: the prompts of the study's search
            items.
        tell: Is called with a line for each task that has no prompts.
        device: Where models run, in torch's words; None: as the study says, or the accelerator.
        progress: Is told how many texts are read, and how many there are.

    Raises:
        MergeError: See ``layer_distances``; or there are no texts.
    """
    path = Path(what).expanduser()
    file = path if path.is_dir() else study_file.file_of(path)
    file = file / study_file.FILE if (file / study_file.FILE).is_file() else file
    if not file.is_file():
        return _models((what,), (Path.cwd(),), texts, device, progress)
    documents = read_all(file)
    if any("recipe" in x.data for x in documents if isinstance(x.data, dict)):
        return _study(study_file.read(file), texts, tell, device, progress)
    named = _named(documents)
    return _models(named, (file.resolve().parent, Path.cwd()), texts, device, progress)


def _named(documents: list[Document]) -> tuple[str, ...]:
    """Return the models that a recipe names, those of its mixture included."""
    recipe = reading_of(documents).recipe
    inside = (*recipe.documents, recipe)
    named = [x for one in inside for x in one.names()]
    named += [x for one in inside if one.moe is not None for x in one.moe.models()]
    return tuple(dict.fromkeys(x for x in named if x not in {one.name for one in inside}))


def _models(
    references: tuple[str, ...],
    roots: tuple[Path, ...],
    texts: Path | None,
    device: str | None,
    progress: Progress | None,
) -> LayersFound:
    if texts is None:
        raise MergeError(
            f"{', '.join(references)}: layers are measured on texts: expected --texts FILE, or a "
            "study file, whose search items are read"
        )
    read, where = read_documents(texts, TEXT), device or device_of(Engine())
    found = distances(references, roots, read, device=where, progress=progress)
    return LayersFound(str(texts), found)


def _study(
    spec: StudySpec,
    texts: Path | None,
    tell: Callable[[str], None],
    device: str | None,
    progress: Progress | None,
) -> LayersFound:
    asked = {"name": "hf"} | ({} if device is None else {"device": device})  # vLLM shows no layers
    engine = spec.engine.model_copy(update=asked)
    check_device(engine)
    builder = Builder(spec)
    if texts is None:
        read, without = prompts(open_tasks(spec, builder.tokenizer))
        for line in without:
            tell(line)
    else:
        read = [*read_documents(texts, TEXT)]
    found = distances(
        spec.template.references(),
        spec.roots,
        read,
        device=device_of(engine),
        batch_size=engine.batch_size,
        dtype=spec.template.written,
        tokenizer=builder.tokenizer,
        progress=progress,
    )
    source = f"search items of {spec.name}" if texts is None else str(texts)
    return LayersFound(source, found)
