"""A tiny random model that reads characters, and lm-eval tasks written to a temporary folder."""

from __future__ import annotations

import json
import re
import string
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import yaml

from evaluators.harness.open import EVALUATOR
from evaluators.harness.task import LmEvalTask
from evaluators.harness.task_files import task_code
from evaluators.protocol import Suite

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

    from evaluators.protocol import LiveModel

CHAT = (
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def character_tokenizer() -> PreTrainedTokenizerFast:
    """One token per character; no padding token, as most models have none."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["<unk>", "<eos>", *string.ascii_lowercase, *string.digits, *" \n.,:?<>+="]
    core = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    core.decoder = decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, unk_token="<unk>", eos_token="<eos>", chat_template=CHAT
    )
    tokenizer.clean_up_tokenization_spaces = False
    return tokenizer


def make_model(seed: int = 0) -> LlamaForCausalLM:
    """Two layers of random weights, wide enough apart for answers to differ between prompts."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=48,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,  # of 32: the least that vLLM takes on a CPU
        num_key_value_heads=1,
        max_position_embeddings=512,
        initializer_range=0.4,
        bos_token_id=None,
        eos_token_id=1,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LlamaForCausalLM(config).eval()


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Threads that wait for a core on a shared machine make these small models ten times slower."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    return character_tokenizer()


@pytest.fixture(scope="session")
def make_tokenizer() -> Callable[[], PreTrainedTokenizerFast]:
    return character_tokenizer


@pytest.fixture(scope="session")
def make_live(
    request: pytest.FixtureRequest,
    tokenizer: PreTrainedTokenizerFast,
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[], LiveModel]:
    """Return the maker of live models that answer by the engine under test."""
    if request.config.getoption("engine") == "hf":
        from evaluators.engines.hf.engine import live_model

        return lambda: live_model(make_model(), tokenizer, batch_size=8)
    from tests.evaluators.following import following, start

    folder = tmp_path_factory.mktemp("vllm")
    engine = start(make_model(), character_tokenizer(), folder, batch_size=8)
    return lambda: following(engine, make_model(), tokenizer, 8)


@pytest.fixture(scope="session")
def live(make_live: Callable[[], LiveModel]) -> LiveModel:
    return make_live()


@pytest.fixture(scope="session")
def model_folder(live: LiveModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model of ``live``, saved."""
    folder = tmp_path_factory.mktemp("model")
    live.model.save_pretrained(folder)
    live.tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def fresh_live(make_live: Callable[[], LiveModel]) -> LiveModel:
    """A model of one's own, to spoil."""
    return make_live()


class Tasks:
    """A folder of lm-eval tasks, and the way to open them."""

    def __init__(self, folder: Path, tokenizer: PreTrainedTokenizerFast) -> None:
        self.folder = folder
        self._tokenizer = tokenizer
        folder.mkdir(exist_ok=True)

    def write(self, name: str, docs: Sequence[dict[str, Any]], **settings: Any) -> str:
        """Write a task file; keys given override the usual ones, None removes a key."""
        data = self.folder / f"{name}.jsonl"
        data.write_text("".join(json.dumps(doc) + "\n" for doc in docs))
        task = {
            "task": name,
            "dataset_path": "json",
            "dataset_kwargs": {
                "data_files": {"test": str(data)},
                "cache_dir": str(self.folder / "cache"),
            },
            "test_split": "test",
            "fewshot_split": "test",
            "doc_to_text": "q",
            "doc_to_target": "a",
            "metadata": {"version": 1.0},
            **settings,
        }
        kept = {k: v for k, v in task.items() if v is not None}
        text = re.sub("'(!function [^']*)'", r"\1", yaml.safe_dump(kept))
        (self.folder / f"{name}.yaml").write_text(text)
        return name

    def open(self, task: str | dict[str, Any], **options: Any) -> LmEvalTask:
        """Open a task as a study's score entry would."""
        opened = self.open_any(task, **options)
        assert isinstance(opened, LmEvalTask)
        return opened

    def open_any(self, task: str | dict[str, Any], **options: Any) -> LmEvalTask | Suite:
        """Open a task or a group as a study's score entry would."""
        chosen = EVALUATOR.options(task=task, include_path=self.folder.name, **options)
        opened = EVALUATOR.open(chosen, self.folder.parent, self._tokenizer)
        assert isinstance(opened, LmEvalTask | Suite)
        return opened

    def write_group(self, name: str, members: Sequence[Any], **settings: Any) -> str:
        """Write the file of a group."""
        text = yaml.safe_dump({"group": name, "task": [*members], **settings})
        (self.folder / f"{name}.yaml").write_text(text)
        return name


@pytest.fixture
def trusted() -> Iterator[None]:
    """Let task files run code, as ``--trust-tasks`` does."""
    with task_code(trusted=True):
        yield


@pytest.fixture
def tasks(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> Tasks:
    return Tasks(tmp_path / "tasks", tokenizer)


@pytest.fixture(scope="session")
def standard(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any, live: LiveModel) -> Tasks:
    """One task per output type: ``gen``, ``choice``, ``ends`` and ``texts``.

    The model is middling at each; some of the texts are longer than its window.
    """
    made = Tasks(tmp_path_factory.mktemp("standard") / "tasks", tokenizer)
    made.write("gen", generation_docs(live), **GENERATION)
    made.write("choice", choice_docs(), **CHOICE)
    both = [metric("acc"), {"metric": "perplexity"}]
    made.write("ends", ending_docs(live), output_type="loglikelihood", metric_list=both)
    made.write("texts", text_docs(), **ROLLING)
    return made


def metric(name: str, **more: Any) -> dict[str, Any]:
    return {"metric": name, "aggregation": "mean", "higher_is_better": True, **more}


GENERATION = {
    "output_type": "generate_until",
    "generation_kwargs": {"until": ["e", "\n"], "max_gen_toks": 6, "do_sample": False},
    "metric_list": [metric("exact_match", ignore_case=True)],
    "filter_list": [
        {
            "name": "first-letter",
            "filter": [
                {"function": "regex", "regex_pattern": "([a-z0-9])"},
                {"function": "take_first"},
            ],
        },
        {"name": "whole", "filter": [{"function": "take_first"}]},
    ],
}

CHOICE = {
    "output_type": "multiple_choice",
    "doc_to_choice": "choices",
    "metric_list": [metric("acc"), metric("acc_norm")],
}

ROLLING = {
    "output_type": "loglikelihood_rolling",
    "doc_to_text": "",
    "doc_to_target": "{{text}}",
    "fewshot_split": None,
    "metric_list": [{"metric": f"{x}"} for x in ("word_perplexity", "byte_perplexity")]
    + [{"metric": "bits_per_byte"}],
}

N = 21  # no multiple of the batch size


def prompts() -> list[str]:
    """Prompts of many lengths, so that batches are padded."""
    letters = string.ascii_lowercase
    return [f"say {letters[i % 26]}{letters[: i * i % 17]}{i}:" for i in range(N)]


def generation_docs(live: LiveModel) -> list[dict[str, Any]]:
    """Targets that the model meets for about half of the documents."""
    how = {"until": ["e", "\n"], "max_gen_toks": 6, "do_sample": False}
    said = live.engine.generate_until([(prompt, how) for prompt in prompts()])
    hits = [next((c for c in text if c.isalnum()), "[invalid]") for text in said]
    return [
        {"q": prompt, "a": hit if i % 2 else "nothing"}
        for i, (prompt, hit) in enumerate(zip(prompts(), hits, strict=True))
    ]


def choice_docs() -> list[dict[str, Any]]:
    return [
        {"q": prompt, "choices": [f"a{i}", f"bb{prompt[4:9]}", "c"], "a": i % 3}
        for i, prompt in enumerate(prompts())
    ]


def ending_docs(live: LiveModel) -> list[dict[str, Any]]:
    """Continuations that are the greedy ones for about half of the documents."""
    how = {"until": [], "max_gen_toks": 2, "do_sample": False}
    said = live.engine.generate_until([(prompt, how) for prompt in prompts()])
    return [
        {"q": prompt, "a": text if i % 2 and text else "xyz"}
        for i, (prompt, text) in enumerate(zip(prompts(), said, strict=True))
    ]


def text_docs() -> list[dict[str, Any]]:
    """Texts of 1 to 1,300 words, in no order; the long ones take several windows."""
    return [{"text": " ".join(prompts()[: 1 + i * 7 % 20] * (1 + i % 3))} for i in range(12)]


class LmEvalSays(NamedTuple):
    results: dict[str, float]  # "metric,filter" -> score
    samples: list[dict[str, Any]]  # per document and filter; of a group: none
    members: dict[str, list[dict[str, Any]]]  # of a group: task -> samples

    def of_task(self, name: str) -> LmEvalSays:
        return LmEvalSays({}, self.members[name], {})

    def items(self, metric: str, filter_: str) -> list[float]:
        return [s[metric] for s in self.samples if s["filter"] == filter_]

    def prompts(self, filter_: str) -> list[list[Any]]:
        return [s["arguments"] for s in self.samples if s["filter"] == filter_]


@pytest.fixture
def lm_eval_says(monkeypatch: pytest.MonkeyPatch, tokenizer: Any) -> Callable[..., LmEvalSays]:
    """Plain lm-eval on the same model: what to be equal to."""

    def run(
        live: LiveModel | Path, tasks: Tasks, name: str, *, lm_args: Any = None, **settings: Any
    ) -> LmEvalSays:
        import lm_eval.evaluator
        from lm_eval.models.huggingface import HFLM
        from lm_eval.tasks import TaskManager

        monkeypatch.setattr(lm_eval.evaluator, "add_env_info", lambda results: None)  # 0.4 s
        manager = TaskManager(include_path=str(tasks.folder), include_defaults=False)
        if isinstance(live, Path):
            lm = HFLM(pretrained=str(live), device="cpu", dtype="float32", batch_size=8)
        else:
            lm = HFLM(
                pretrained=live.model,
                tokenizer=character_tokenizer(),
                batch_size=live.batch_size,
                **(lm_args or {}),
            )
        out = lm_eval.evaluator.simple_evaluate(
            model=lm, tasks=[name], task_manager=manager, bootstrap_iters=0, **settings
        )
        results = {**out["results"], **out.get("groups", {})}
        return LmEvalSays(results[name], out["samples"].get(name, []), out["samples"])

    return run
