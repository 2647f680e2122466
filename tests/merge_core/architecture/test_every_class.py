"""Every class of transformers that writes text and can be made tiny: its folder is read whole."""

import pytest
import torch
from safetensors.torch import load_file

from merge_core.architecture.layers import modules_of
from merge_core.architecture.stored_names import stored_form
from merge_core.parents.checkpoint import Checkpoint
from tests.merge_core.places import at
from tests.sweep import tiny

LEAST = 150  # classes that can be made tiny, of some 230


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_folders_of_every_class_are_read_without_a_false_complaint(tmp_path):
    complaints, read = {}, 0
    for name, (_, model_class) in tiny.classes().items():
        try:
            model = tiny.model(model_class, tiny.config(name), 0)
            model.save_pretrained(tmp_path / name)
        except Exception:  # transformers cannot make it, or not save it
            continue
        found = [*complaints_of(tmp_path / name, model)]
        read += 1
        if found:
            complaints[name] = found
    assert complaints == {}
    assert read >= LEAST


def complaints_of(folder, model):
    """Yield what is wrong with what is read of a folder that transformers saved of a model."""
    parent = Checkpoint(at(folder))
    facts, files = parent.architecture, sorted(folder.glob("*.safetensors"))
    saved = {name for file in files for name in load_file(file)}
    if parent.tensors.keys() != saved:
        yield f"renamed: {sorted(parent.tensors.keys() ^ saved)[:3]}"
    if lacking := facts.lacking(parent.tensors):
        yield f"lacking: {lacking[:3]}"
    left = {name: facts.reason_to_drop(name, parent.tensors) for name in parent.tensors}
    if dropped := [name for name, why in left.items() if why is not None]:
        yield f"dropped: {dropped[:3]}"
    if parent.left_out:
        yield f"left out: {parent.left_out}"
    modules = modules_of(facts.in_order(parent.tensors), facts.stacks)
    if not any(module.layers.count for module in modules):
        yield "no layers"
    yield from misnamed(parent, model)


def misnamed(parent, model):
    """Yield names of modules' tensors that are taken for another tensor than their own."""
    model._weight_conversions, alone = None, {}
    for name, x in model.state_dict().items():
        try:
            stored = stored_form(model, name, torch.empty_like(x, device="meta"))
        except ValueError:  # it is stored together with others
            continue
        if len(stored) == 1 and stored[0][1].shape == x.shape and stored[0][0] in parent.tensors:
            alone[name] = stored[0][0]
    found = parent.stored_names([*alone])
    if wrong := [name for name in alone if found[name] not in (name, alone[name])]:
        yield f"misnamed: {wrong[:3]}"
