"""What only the user may allow, whatever a study file or a database says."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from evaluators.harness.task_files import task_code
from evaluators.jsonl.judge_key import keys_sent
from merge_core import consent as models


@contextmanager
def consent(
    *,
    trust_tasks: bool = False,
    send_keys: Iterable[str] = (),
    trust_remote_code: bool = False,
    allow_crimes: bool = False,
) -> Iterator[None]:
    """Allow in a ``with`` block what a study needs and a stranger may not have.

    Args:
        trust_tasks: Run code that lm-eval task files name under ``!function``.
        send_keys: ``NAME=host`` for each judge's key that may go to another machine.
        trust_remote_code: Run code that model folders bring.
        allow_crimes: Merge models of unlike architectures.

    Raises:
        ParameterError: One of ``send_keys`` is something else.
    """
    flags = {models.CODE: trust_remote_code, models.CRIMES: allow_crimes}
    given = [name for name, allowed in flags.items() if allowed]
    with task_code(trusted=trust_tasks), keys_sent(send_keys), models.allowed(*given):
        yield
