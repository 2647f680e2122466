"""No network, few threads, and tiny random parents that share one architecture.

A *family* is a folder of four model folders: ``base`` and its experts ``one``, ``two``, ``three``,
each the base plus a random task vector. Recipes in tests name them so, relative to the family.
"""

from __future__ import annotations

import os

os.environ.update(
    HF_HUB_OFFLINE="1",
    HF_DATASETS_OFFLINE="1",
    HF_HUB_DISABLE_PROGRESS_BARS="1",
    TOKENIZERS_PARALLELISM="false",
    TRANSFORMERS_VERBOSITY="error",
    OMP_NUM_THREADS="1",  # before torch is imported, and
    OMP_WAIT_POLICY="passive",  # threads that wait for a core cost more than they give
)

import shutil
import signal
import string
import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

from evaluators import plugin_file
from tests.servers import grpc_proxy, mariadb, postgres  # noqa: F401  # pytest finds fixtures here

if TYPE_CHECKING:
    from torch import Tensor

os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")  # GiB
os.environ.setdefault("RAY_gcs_server_port_wait_time_s", "120")  # on a busy machine
os.environ["MERGETUNE_CACHE"] = tempfile.mkdtemp(prefix="mergetune-test-cache-")
settings.register_profile("repeatable", deadline=None, derandomize=True, database=None)
settings.load_profile("repeatable")

for _number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):  # whoever starts the tests in the
    if signal.getsignal(_number) is signal.SIG_IGN:  # background may have them passed over
        signal.signal(_number, signal.SIG_DFL)
if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
    signal.signal(signal.SIGINT, signal.default_int_handler)

MODELS = ("base", "one", "two", "three")
SPECIAL = ("<pad>", "<bos>", "<eos>", "<unk>")
CHARACTERS = string.digits + string.ascii_lowercase + " .,:;?!+-*/=()\n"
SPREAD = 0.05  # of the random task vectors, against weights of about 0.2


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--engine", choices=("hf", "vllm"), default="hf", help="what runs the models")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put the longest first; leave out, and say so, what needs vLLM unless it is asked for."""
    if config.getoption("engine") == "vllm":
        return
    apart = [item for item in items if item.get_closest_marker("vllm")]
    config.hook.pytest_deselected(items=apart)
    items[:] = [item for item in items if not item.get_closest_marker("vllm")]
    # the longest first, or one process ends alone; they are the last ones that pytest finds
    items.sort(key=lambda item: "studies" not in item.path.parts)


@pytest.fixture(autouse=True)
def plugin_files_of_one_test() -> Iterator[None]:
    """Forget which plugin files a test has loaded: workers of a later one would load them, too."""
    before = dict(plugin_file._files)
    yield
    plugin_file._files.clear()
    plugin_file._files.update(before)


@pytest.fixture(scope="session")
def family(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return the folder of a family, made when first asked for; do not write into it."""
    made: dict[tuple[str, str], Path] = {}

    def get(kind: str = "llama-tied", dtype: str = "float32") -> Path:
        if (kind, dtype) not in made:
            folder = tmp_path_factory.mktemp(f"{kind}-{dtype}")
            _make_family(folder, kind, dtype)
            made[kind, dtype] = folder
        return made[kind, dtype]

    return get


@pytest.fixture
def own_family(family: Callable[..., Path], tmp_path: Path) -> Callable[..., Path]:
    """Return a copy of a family, to spoil."""

    def get(kind: str = "llama-tied", dtype: str = "float32") -> Path:
        return Path(shutil.copytree(family(kind, dtype), tmp_path / kind))

    return get


def _make_family(folder: Path, kind: str, dtype: str) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    base = folder / "base"
    with torch.random.fork_rng():
        torch.manual_seed(zlib.crc32(kind.encode()))
        _model(kind).to(getattr(torch, dtype)).save_pretrained(base)
    _tokenizer().save_pretrained(base)
    weights = {name: x.float() for name, x in load_file(base / "model.safetensors").items()}
    stream = torch.Generator().manual_seed(zlib.crc32(kind.encode()))
    start = _moved(weights, 0.2, stream)
    for name in MODELS:
        if name != "base":
            shutil.copytree(base, folder / name)
        tensors = start if name == "base" else _moved(start, SPREAD, stream)
        stored = {key: x.to(getattr(torch, dtype)) for key, x in tensors.items()}
        if kind == "pythia":
            stored |= _old_buffers(getattr(torch, dtype))
        save_file(stored, folder / name / "model.safetensors", metadata={"format": "pt"})


def _moved(tensors: dict[str, Tensor], spread: float, stream: Any) -> dict[str, Tensor]:
    import torch

    return {
        name: x + spread * torch.randn(x.shape, generator=stream) for name, x in tensors.items()
    }


def _old_buffers(dtype: Any) -> dict[str, Tensor]:
    """What checkpoints of GPT-NeoX stored until 2023, and classes of today do not load."""
    import torch

    buffers = {}
    for i in range(3):
        place = f"gpt_neox.layers.{i}.attention"
        buffers[f"{place}.bias"] = torch.ones(1, 1, 8, 8, dtype=torch.bool).tril()
        buffers[f"{place}.masked_bias"] = torch.tensor(-1e9, dtype=dtype)
        buffers[f"{place}.rotary_emb.inv_freq"] = torch.tensor([1.0], dtype=dtype)
    return buffers


HEADS = {"num_attention_heads": 2, "num_key_value_heads": 1}
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {  # class -> what its config has beside SIZES
    "llama-tied": ("Llama", {**HEADS, "tie_word_embeddings": True}),
    "llama": ("Llama", {**HEADS, "tie_word_embeddings": False}),
    "gpt-neox": ("GPTNeoX", {"num_hidden_layers": 3}),
    "pythia": ("GPTNeoX", {"num_hidden_layers": 3}),
    "mistral": ("Mistral", HEADS),
    "qwen2": ("Qwen2", {**HEADS, "layer_types": ["full_attention"] * 4}),
    "qwen3": ("Qwen3", {**HEADS, "head_dim": 8}),
    "gemma2": ("Gemma2", {**HEADS, "head_dim": 8}),
    "gemma3": (
        "Gemma3",
        {**HEADS, "head_dim": 8, "layer_types": ["sliding_attention", "full_attention"] * 2},
    ),
    "phi3": ("Phi3", HEADS),
    "olmo2": ("Olmo2", HEADS),
    "mixtral": ("Mixtral", {**HEADS, "num_local_experts": 3}),
    "gpt2": ("GPT2", {"n_embd": 16, "n_layer": 4, "n_head": 2, "n_positions": 128}),
    "bert": ("Bert", {}),
    "t5": ("T5", {"d_model": 16, "d_ff": 24, "d_kv": 8, "num_heads": 2, "num_decoder_layers": 4}),
}
SIZES = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_attention_heads": 2,
    "num_hidden_layers": 4,
    "max_position_embeddings": 128,
}
CONFIG_NAMES = {"Gemma3": "Gemma3TextConfig"}
HEADED = {"GPT2": "GPT2LMHeadModel", "Bert": "BertForMaskedLM", "T5": "T5ForConditionalGeneration"}


def _model(kind: str) -> Any:
    import transformers

    name, own = CONFIGS[kind]
    tokens = {
        "vocab_size": len(SPECIAL) + len(CHARACTERS),
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    sizes = {} if name in ("GPT2", "T5") else SIZES
    if name == "T5":
        sizes = {"num_layers": 3}
    config = getattr(transformers, CONFIG_NAMES.get(name, f"{name}Config"))
    model = getattr(transformers, HEADED.get(name, f"{name}ForCausalLM"))
    return model(config(**{**sizes, **tokens, **own}))


def _tokenizer() -> Any:
    """One token per character."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {word: i for i, word in enumerate([*SPECIAL, *CHARACTERS])}
    core = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    core.decoder = decoders.Fuse()
    names = dict(zip(("pad_token", "bos_token", "eos_token", "unk_token"), SPECIAL, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=core, **names)
