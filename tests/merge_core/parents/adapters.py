"""LoRA adapters made by peft on small bases, and spoiled."""

import json
import re
import warnings
from types import SimpleNamespace

import torch
from safetensors.torch import load_file, save_file

from merge_core.parents.checkpoint import Checkpoint
from merge_core.parents.locate import Located, Place
from merge_core.parents.lora import Adapted
from merge_core.parents.lora_keys import CONFIG, WEIGHTS
from tests.merge_core.places import at

LAYER = "base_model.model.model.layers.0."
Q, K = f"{LAYER}self_attn.q_proj", f"{LAYER}self_attn.k_proj"
ATTENTION = ["q_proj", "k_proj", "o_proj"]  # of 16 x 16, 8 x 16 and 16 x 16


def train(base, out, **options):
    """Save what peft would after some training of the base: every trained entry is random."""
    import peft
    from transformers import AutoModelForCausalLM

    saving = {"save_embedding_layers": options.pop("save_embedding_layers", "auto")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft's, on ties, layer kinds and saved embeddings
        model = AutoModelForCausalLM.from_pretrained(base)
        model = peft.get_peft_model(model, peft.LoraConfig(task_type="CAUSAL_LM", **options))
        stream = torch.Generator().manual_seed(1)
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data = 0.3 * torch.randn(parameter.shape, generator=stream)
        model.save_pretrained(out, **saving)
    return out


def merged(base, folder):
    """Return the weights of peft's own merge in float32."""
    import peft
    from transformers import AutoModelForCausalLM

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as in ``train``
        model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        return peft.PeftModel.from_pretrained(model, folder).merge_and_unload().state_dict()


def assert_equal_to_peft(adapted, base, folder):
    """Every tensor is within 1e-6 of its largest entry: sums in other orders round otherwise."""
    wanted = merged(base, folder)
    for name in adapted.tensors:
        found, size = adapted.tensor(name), wanted[name].abs().max()
        assert (found - wanted[name]).abs().max() <= 1e-6 * size, name


def adapted_by(reference, base, folder):
    return Adapted(Located(reference, base.located.model, Place(str(folder), folder)), base)


def small(bases, tmp_path, **options):
    """An adapter of q_proj and k_proj, to spoil; returns base, folder, tensors and config."""
    options = {"target_modules": ["q_proj", "k_proj"], "r": 4, "lora_alpha": 6, **options}
    folder = train(bases["llama"], tmp_path / "a", **options)
    return SimpleNamespace(
        base=Checkpoint(at(bases["llama"], "base")),
        folder=folder,
        tensors=load_file(folder / WEIGHTS),
        config=json.loads((folder / CONFIG).read_text()),
    )


def opened(case):
    """Write tensors and config of a case and open it."""
    save_file(case.tensors, case.folder / WEIGHTS)
    (case.folder / CONFIG).write_text(json.dumps(case.config))
    return adapted_by("base+a", case.base, case.folder)


def renamed(case, pattern, text):
    return {re.sub(pattern, text, key): tensor for key, tensor in case.tensors.items()}
