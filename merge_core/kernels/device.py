"""Whether this machine has a device."""

from __future__ import annotations

from merge_core.errors import ParameterError


def check_device(device: str, where: str) -> None:
    """Refuse a device that cannot hold a tensor.

    Args:
        device: In torch's words.
        where: What names it, for the message.

    Raises:
        ParameterError: It is not there, or torch has no support for it here.
    """
    import torch

    try:
        torch.zeros(1, device=device).item()
    except Exception as error:  # each kind of device has its own: AssertionError, RuntimeError, ...
        there = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
        raise ParameterError(
            f"{where}: {device!r} cannot be used on this machine: "
            f"{next(iter(str(error).splitlines()), type(error).__name__)[:120]}; here are "
            f"{', '.join(there)}; choose one of them"
        ) from error
