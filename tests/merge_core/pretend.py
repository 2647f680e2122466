"""A device that is none: its tensors are the CPU's, but may not be mixed with the CPU's own.

Inside ``accelerator()`` tensors on the device ``meta`` have values, so that code which looks at
them runs as it is. Refused is what a real accelerator refuses: operations on tensors of two devices
(a number's worth from the CPU and copies aside), and ``numpy()`` there.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

DEVICE = "meta"
COPIES = (torch.ops.aten.copy_.default, torch.ops.aten._to_copy.default)


class Away(torch.Tensor):
    """A tensor that says that it is elsewhere; ``inside`` has its values."""

    inside: torch.Tensor

    @staticmethod
    def __new__(cls, real):
        found = torch.Tensor._make_wrapper_subclass(
            cls,
            real.shape,
            strides=real.stride(),
            storage_offset=real.storage_offset(),
            dtype=real.dtype,
            device=DEVICE,
        )
        found.inside = real
        return found

    def tolist(self):
        return self.inside.tolist()

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        pytest.fail(f"{func} outside of accelerator()")


class _Pretend(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        wanted = kwargs.pop("device", None)
        found = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, torch.Tensor)]
        away = [x for x in found if isinstance(x, Away)]
        here = [x for x in found if not isinstance(x, Away) and x.dim()]
        if away and here and func not in COPIES:
            raise RuntimeError(f"{func}: tensors of two devices")
        bare = tree_map(lambda x: x.inside if isinstance(x, Away) else x, (args, kwargs))
        out = func(*bare[0], **bare[1])
        if func is COPIES[0]:
            return args[0]
        known = {id(x.inside): x for x in away}  # what is changed in place stays the same object
        there = bool(away) if wanted is None else wanted.type == DEVICE

        def given(x: Any) -> Any:
            if not isinstance(x, torch.Tensor):
                return x
            return known[id(x)] if id(x) in known else Away(x) if there else x

        return tree_map(given, out)


@contextmanager
def accelerator() -> Iterator[str]:
    """Give the device's name while it exists."""
    tensor = torch.tensor

    def made(data, *, dtype=None, device=None):
        here = tensor(data, dtype=dtype)
        return here if device is None else here.to(device)

    with pytest.MonkeyPatch.context() as patch, _Pretend():
        patch.setattr(torch, "tensor", made)
        patch.setattr(
            torch.Tensor,
            "new_tensor",
            lambda x, data, dtype: tensor(data, dtype=dtype).to(x.device),
        )
        yield DEVICE
