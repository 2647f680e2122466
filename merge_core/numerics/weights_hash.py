"""Two names for weights: a cheap integer hash for live candidates, SHA-256 for parents.

The integer hash is a sum of hashes of a few words each, and such sums do not care about order:
equal for every thread count and device, in memory and on disk, in one file or in many shards.
"""

from __future__ import annotations

import functools
import hashlib
import operator
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Any, NamedTuple

from merge_core.contract import Tensor
from merge_core.kernels.torch_compile import compiled
from merge_core.numerics import words_on_cpu
from merge_core.numerics.bernoulli import WORD, shifted, signed, stirred

_FAR_BLOCK = 2**22  # columns of eight words on an accelerator: 128 MiB
LANES = 8  # words that are folded into one before they are mixed
KEYS = 2**18  # tensors whose keys are kept: more than a model of many experts has
FUSED = 2**10  # bytes from which a kernel call costs less than a few blocks
BITS = {  # type -> which bits of a word are no sign; what carries an infinity into the sign
    "torch.bfloat16": (0x7FFF7FFF, 0x00800080),
    "torch.float16": (0x7FFF7FFF, 0x04000400),
    "torch.float32": (0x7FFFFFFF, 0x00800000),
}
NO_FLOAT = (WORD >> 1, 0)
_STEP, _LANE = 0x9E3779B1, 0x85EBCA77  # odd: 2**32 over the golden ratio, and Murmur3's first


def tensor_digest(name: str, tensor: Tensor, *, fuse: bool = False) -> int:
    """Return a 64-bit hash of a tensor's name, type, shape and bits, as an unsigned integer.

    The bits are taken in words of 4 bytes, little-endian, the last one filled up with zeros. Of
    ``n`` words those at ``i, i + n // 8, i + 2 (n // 8), ...`` are folded into one, which is mixed
    with ``i``; two sums of all these, each modulo ``2**32``, are the two halves. A fused kernel
    gives the same hash.
    """
    return digest_and_finiteness(name, tensor, fuse=fuse)[0]


def digest_and_finiteness(name: str, tensor: Tensor, *, fuse: bool = False) -> tuple[int, bool]:
    """Return :func:`tensor_digest`, and whether all entries are finite, from one look at the bits.

    An entry is finite whose exponent is not the highest, and so is whatever is no float. Float64
    and 8-bit floats take a look of their own.
    """
    import torch

    data = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
    if data.storage_offset() % 4:
        data = data.clone()  # a view of other width starts at a multiple of it
    whole = data.numel() // (4 * LANES) * (4 * LANES)
    key, given, empty = _keyed(name, tensor.dtype, tuple(tensor.shape), data.device)
    total, overflows = key, False
    if whole:
        table = data[:whole].view(torch.int32).view(LANES, -1)
        fold = _fused(data.device) if fuse and whole >= FUSED else _by_blocks
        high, low, over = map(int, fold(table, given))
        total += ((high & WORD) << 32) + (low & WORD)
        overflows = over != 0
    if whole == data.numel():
        total += empty
    else:
        signless, carry = BITS.get(str(tensor.dtype), NO_FLOAT)
        rest = bytes(data[whole:].tolist()).ljust(4 * LANES, b"\0")
        words = struct.unpack(f"<{LANES}I", rest)
        total += _column(words, key)
        overflows |= any(((word & signless) + carry) & ~signless & WORD for word in words)
    if tensor.is_floating_point() and str(tensor.dtype) not in BITS:
        overflows = not bool(tensor.isfinite().all())
    return total % 2**64, not overflows


@functools.lru_cache(KEYS)
def _keyed(name: str, dtype: Any, shape: tuple[int, ...], device: Any) -> tuple[int, Tensor, int]:
    """Return a tensor's key, what :func:`_folded` is given, and the hash of no words left over."""
    import torch

    text = f"{name}\x1f{dtype}\x1f{shape}".encode()
    key = int.from_bytes(blake2b(text, digest_size=8).digest(), "big")
    numbers = [signed(x & WORD) for x in (key >> 32, key, *BITS.get(str(dtype), NO_FLOAT))]
    given = torch.tensor(numbers, dtype=torch.int32).to(device)
    return key, given, _column([0] * LANES, key)


def _column(words: Sequence[int], key: int) -> int:
    """Return what :func:`_folded` gives for one column, in Python's own integers: 64 bits."""
    high_key, low_key = ((part + 1) & WORD for part in (key >> 32, key & WORD))
    high, low = _lane_sums(words, high_key ^ low_key)
    upper, lower = (int(_mixed(x)) & WORD for x in (high + high_key, low ^ low_key))
    return (upper << 32) + lower


def _lane_sums(rows: Iterable[Any], start: Any) -> tuple[Any, Any]:
    """Return two sums over the lanes, each lane times its own odd number."""
    high = low = start
    for lane, row in enumerate(rows):
        mixed = row ^ shifted(row, 15)  # two flipped sign bits must not cancel out
        high = high + mixed * signed((_STEP * (2 * lane + 1)) & WORD)
        low = low + mixed * signed((_LANE * (2 * lane + 1)) & WORD)
    return high, low


def _by_blocks(table: Tensor, given: Tensor) -> tuple[int, int, int]:
    """Return what :func:`_folded` does, with temporaries that stay in the cache."""
    if table.device.type == "cpu":
        return words_on_cpu.folded(table, given, (_STEP, _LANE))
    high = low = over = 0
    for start in range(0, table.shape[1], _FAR_BLOCK):
        more = _folded(table[:, start : start + _FAR_BLOCK], given, start)
        high, low, over = high + int(more[0]), low + int(more[1]), max(over, int(more[2]))
    return high, low, over


def _folded(table: Tensor, given: Tensor, start: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Return two sums over words, each modulo ``2**32``, and 0 where none overflows.

    Args:
        table: ``(8, n)`` int32: the words. Those overflow that hold a number of highest exponent.
        given: ``(4,)`` int32: the two halves of the key; the bits that are no sign; what carries
            the highest exponent, and no other, into the sign.
        start: Place of the first column.
    """
    import torch

    rows = table.unbind()
    high, low = _lane_sums(rows, given[0] ^ given[1])
    signless, carry = given[2], given[3]
    over = functools.reduce(operator.or_, ((row & signless) + carry for row in rows))
    places = torch.arange(table.shape[1], dtype=torch.int32, device=table.device) + start
    high = _mixed(high + places * signed(_STEP) + given[0])
    low = _mixed(low ^ (places * signed(_LANE) + given[1]))
    signs = ((over & ~signless) >> 15) & 0x10001
    return high.sum(dtype=torch.int32), low.sum(dtype=torch.int32), signs.amax()


@functools.cache
def _fused(device: Any) -> Callable[[Tensor, Tensor], tuple[Any, Any, Any]]:
    import torch

    table = torch.empty(LANES, 2**17, dtype=torch.int32, device=device)
    return compiled(_folded, [table, torch.empty(4, dtype=torch.int32, device=device)])


def combined(digests: Iterable[int], scales: Mapping[int, float] | None = None) -> str:
    """Return the digest of a model from those of its tensors: 16 hex characters.

    ``scales``: layer -> what its input is multiplied by, if any is: a model with the same weights
    and other scales is another one.
    """
    texts = [f"input_scale\x1f{layer}\x1f{x.hex()}" for layer, x in (scales or {}).items()]
    more = (blake2b(text.encode(), digest_size=8).digest() for text in texts)
    total = sum(digests) + sum(int.from_bytes(code, "big") for code in more)
    return f"{total % 2**64:016x}"


class Content(NamedTuple):
    """What named tensors hold.

    Args:
        digest: SHA-256 over name, type, shape and bytes of each, in the order given, hex.
        sums: Name -> a number of 64 bits that tells which of two models' tensors differ, in a tenth
            of the digest's time: a hash of type and shape, plus the tensor's words of 8 bytes
            (little-endian). So it does not see words that change places.
    """

    digest: str
    sums: dict[str, int]


def content_of(tensors: Iterable[tuple[str, Tensor]]) -> Content:
    """Return digest and sums of named tensors, each of which is read once."""
    import torch

    state, sums = hashlib.sha256(), {}
    for name, tensor in tensors:
        what = f"{tensor.dtype}\x1f{tuple(tensor.shape)}\x1f"
        data = tensor.reshape(-1).view(torch.uint8).cpu().numpy()
        state.update(f"{name}\x1f{what}".encode())
        state.update(data.data)
        whole, rest = data[: len(data) // 8 * 8], data[len(data) // 8 * 8 :]
        total = int(whole.view("<u8").sum(dtype="u8")) + int.from_bytes(rest.data, "little")
        code = blake2b(what.encode(), digest_size=8).digest()
        sums[name] = (total + int.from_bytes(code, "big")) % 2**64
    return Content(state.hexdigest(), sums)


def _mixed(x: Any) -> Any:
    """Return words mixed by lowbias32; see :func:`merge_core.numerics.bernoulli.stirred`."""
    x = stirred(x)
    return x ^ shifted(x, 16)
