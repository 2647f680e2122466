"""A genotype gives every tensor the numbers that mergekit-evolve's own recipe of it gives."""

import itertools
import os
from collections import Counter

import numpy as np
import pytest
import yaml

from merge_core.merge.nested import plan
from merge_core.parents.open import open_parents
from merge_core.recipe import read as recipe_reader
from merge_core.recipe.yaml_document import parse_all
from search.draft.evolve import How, import_evolve
from search.run.check import check
from search.space.space import Space
from search.space.starting_points import defaults
from search.spec.study_file import read
from tests.search.real import QUICKSTART

genome = pytest.importorskip("mergekit.evo.genome", reason="the oracle is a development dependency")

MODELS = [str(QUICKSTART / "models" / name) for name in ("add", "sort", "rev")]
BASE = str(QUICKSTART / "models" / "base")
LAST = ("model.norm.weight", "lm_head.weight")


def both(tmp_path, definition):
    """Return the study of a genome, and mergekit-evolve's own object for it."""
    tasks = [{"name": "t", "metric": "acc"}]
    file = tmp_path / "evolve.yml"
    file.write_text(yaml.safe_dump({"genome": definition, "tasks": tasks}))
    study = import_evolve(file, How(), tmp_path / "study", tasks=False).files[0]
    check(study, strict=True)
    defined = genome.ModelGenomeDefinition.model_validate(definition)
    return read(study), genome.ModelGenome(defined)


def theirs(made, genotype):
    text = made.genotype_merge_config(genotype).to_yaml()
    return recipe_reader.of_documents(parse_all(text, "theirs"))


def numbers(recipe):
    """Return tensor -> what goes in with which parameters; absolute paths, no order of models."""
    parents = open_parents(recipe.references(), (QUICKSTART,))
    found = {}
    for step in plan(recipe, parents).steps:
        inputs = zip(step.operands, step.values, strict=True)
        own = {
            os.path.basename(o.parent): {k: round(float(x), 6) for k, x in v.items()}
            for o, v in inputs
        }
        shared = {key: x for key, x in step.shared.items() if key != "int8_mask"}
        shared |= {"t": round(shared["t"], 6)} if "t" in shared else {}
        base = step.base and os.path.basename(step.base.parent)
        found[step.tensor] = (base, own, shared)
    return found


def space_of(spec):
    (main,) = open_parents([spec.template.base_or_first()], (spec.folder,)).values()
    return Space(spec.template, main.tensors)


@pytest.mark.parametrize(
    ("method", "size", "filters", "smooth"),
    [
        *itertools.product(
            ("linear", "task_arithmetic", "ties", "dare_ties"),
            (None, 2),
            (None, ["self_attn", "mlp"]),
            (False, True),
        )
    ],
)
def test_a_genotype_gives_every_tensor_the_numbers_that_it_has_there(
    tmp_path, method, size, filters, smooth
):
    definition = {"models": MODELS, "merge_method": method, "smooth": smooth, "filters": filters}
    definition |= {"base_model": BASE} if method != "linear" else {}
    definition |= {"layer_granularity": size} if size else {}
    spec, made = both(tmp_path, definition)
    bands, sets = (4 // size if size else 1), len(filters or []) + 1
    params = ("weight", "density")[: 2 if "ties" in method else 1]
    genes = np.random.default_rng(0).uniform(0.1, 1.0, (bands, len(MODELS), sets, len(params)))
    space = space_of(spec)
    drawn, bands_of = {}, Counter()
    names = [os.path.basename(model) for model in MODELS]
    for dimension in space.dimensions:
        name, model, *rest = dimension.name.split("/")
        which = (filters or []).index(rest[0]) if rest and rest[0] in (filters or ()) else sets - 1
        owner = names.index(model), which, params.index(name)
        drawn[dimension.name] = float(genes[(bands_of[owner], *owner)])
        bands_of[owner] += 1
    assert len(drawn) == genes.size
    ours, wanted = numbers(space.recipe(drawn)), numbers(theirs(made, genes))
    if smooth:  # a gradient's last number holds behind the layers here, its first one there
        ours, wanted = ({k: x for k, x in y.items() if k not in LAST} for y in (ours, wanted))
    assert len(ours) > 30
    assert ours == wanted


@pytest.mark.parametrize("method", ["linear", "task_arithmetic", "ties", "dare_ties", "slerp"])
def test_the_search_starts_at_the_genotype_that_mergekit_evolve_begins_with(tmp_path, method):
    models = MODELS[:2] if method == "slerp" else MODELS
    definition = {"models": models, "merge_method": method, "layer_granularity": 2}
    definition |= {"base_model": BASE} if method not in ("linear", "slerp") else {}
    spec, made = both(tmp_path, definition)
    space = space_of(spec)
    start = space.recipe(defaults(space))
    assert numbers(start) == numbers(theirs(made, made.initial_genotype()))


@pytest.mark.parametrize(
    "wrong",
    [
        {"merge_method": "dare_ties"},
        {"merge_method": "ties"},
        {"merge_method": "slerp", "smooth": True},
        {"merge_method": "slerp", "filters": ["mlp"]},
        {"merge_method": "della"},
        {"layer_granularity": "many"},
    ],
)
def test_what_mergekit_evolve_refuses_is_refused_here(tmp_path, wrong):
    definition = {"models": MODELS[:2], "merge_method": "linear", **wrong}
    with pytest.raises(ValueError, match=r"\w"):
        genome.ModelGenomeDefinition.model_validate(definition)
    with pytest.raises(ValueError, match=r"evolve\.yml:\d+: genome\."):
        both(tmp_path, definition)


def test_defaults_are_those_of_mergekit_evolve():
    config = pytest.importorskip("mergekit.evo.config", reason="the oracle needs its dependencies")
    from search.draft import evolve_file

    for ours, there in (
        (evolve_file.Genome, genome.ModelGenomeDefinition),
        (evolve_file.Task, config.TaskConfiguration),
        (evolve_file.Settings, config.EvolMergeConfiguration),
    ):
        known = {key: field.default for key, field in there.model_fields.items()}
        assert {key: known[key] for key in ours.model_fields} == {
            key: field.default for key, field in ours.model_fields.items()
        }
        extra = known.keys() - ours.model_fields.keys()
        assert extra <= {"genome", "tasks"}
