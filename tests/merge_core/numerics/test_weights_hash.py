import hashlib
import itertools
import struct

import pytest
import torch

from merge_core.numerics import weights_hash, words_on_cpu
from merge_core.numerics.weights_hash import (
    combined,
    content_of,
    digest_and_finiteness,
    tensor_digest,
)
from merge_core.testing import threads
from tests.merge_core.conftest import weights_digest

WORD = 2**32 - 1
TYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def lowbias32(x):
    """C. Wellons, "Hash Function Prospector" (2018): the function of lowest bias found there."""
    x = (x ^ x >> 16) * 0x7FEB352D & WORD
    x = (x ^ x >> 15) * 0x846CA68B & WORD
    return x ^ x >> 16


def folded(words, keys):
    """Two sums over words, an eighth of them in each lane, in Python's own integers."""
    n = len(words) // 8
    high = low = 0
    for i in range(n):
        x = y = keys[0] ^ keys[1]
        for lane in range(8):
            word = words[lane * n + i] & WORD
            word ^= word >> 15
            x += word * 0x9E3779B1 * (2 * lane + 1)
            y += word * 0x85EBCA77 * (2 * lane + 1)
        high += lowbias32(x + i * 0x9E3779B1 + keys[0] & WORD)
        low += lowbias32((y & WORD) ^ (i * 0x85EBCA77 + keys[1] & WORD))
    return ((high & WORD) << 32) + (low & WORD)


def by_hand(name, tensor, words):
    """The digest in Python's own integers; ``words``: its bits, 4 bytes each."""
    text = f"{name}\x1f{tensor.dtype}\x1f{tuple(tensor.shape)}".encode()
    key = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")
    data = tensor.numel() * tensor.element_size()
    whole = data // 32 * 8
    rest = [*words[whole:], *[0] * 8][:8]
    keys = [key >> 32, key & WORD]
    total = key + folded(list(words[:whole]), keys)
    return (total + folded(rest, [k + 1 & WORD for k in keys])) % 2**64


def sample(dtype=torch.float32, shape=(3, 5)):
    return torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(dtype)


def words_of(tensor):
    """The bytes of a tensor in little-endian words of 4, filled up with zeros."""
    data = tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    data += bytes(-len(data) % 4)
    return struct.unpack(f"<{len(data) // 4}i", data)


@pytest.mark.parametrize("dtype", TYPES)
def test_digest_is_that_of_an_independent_program(dtype):
    tensor = sample(dtype, (7, 11))
    assert tensor_digest("a.weight", tensor) == by_hand("a.weight", tensor, words_of(tensor))


def test_digest_of_flags_and_whole_numbers_is_that_of_their_bits():
    flags, numbers = torch.tensor([True, False]), torch.tensor([-1, 7])
    assert tensor_digest("x", flags) == by_hand("x", flags, [1])
    assert tensor_digest("x", numbers) == by_hand("x", numbers, [-1, -1, 7, 0])


def test_golden_digest():
    # By hand above: float32 1, -0 and the smallest subnormal have the bits 3f800000, 80000000, 1.
    tensor = torch.tensor([1.0, -0.0, 1.4e-45])
    expected = by_hand("w", tensor, [0x3F800000, 0x80000000, 1])
    assert f"{expected:016x}" == "7ffd3ff15f25457a"
    assert weights_digest([("w", tensor)]) == "7ffd3ff15f25457a"


def test_digest_of_a_view_that_starts_anywhere_is_that_of_its_copy():
    long = sample(torch.bfloat16, (40,))
    for start in range(5):
        view = long[start : start + 9]
        assert tensor_digest("w", view) == tensor_digest("w", view.clone())
    assert tensor_digest("w", sample().T) == tensor_digest("w", sample().T.contiguous())


@pytest.mark.parametrize("dtype", TYPES)
def test_every_single_bit_changes_the_digest(dtype):
    tensor = sample(dtype, (4,))
    wide = tensor.view({8: torch.int64, 4: torch.int32, 2: torch.int16}[tensor.element_size()])
    digests = {tensor_digest("w", tensor)}
    bits = 8 * tensor.element_size()
    for place, bit in itertools.product(range(4), range(bits)):
        flipped = wide.clone()
        flipped[place] ^= -(2**bit) if bit == bits - 1 else 2**bit
        digests.add(tensor_digest("w", flipped.view(dtype)))
    assert len(digests) == 1 + 4 * bits


@pytest.mark.parametrize("other", ["name", "type", "shape", "order"])
def test_digest_changes_with_name_type_shape_and_order_of_entries(other):
    zeros = torch.zeros(2, 3, dtype=torch.bfloat16)
    a, b = sample(), sample()
    changed = {
        "name": (("w", zeros), ("v", zeros)),
        "type": (("w", zeros), ("w", zeros.half())),
        "shape": (("w", zeros), ("w", zeros.T)),
        "order": (("w", a), ("w", b.flip(0))),
    }[other]
    first, second = (tensor_digest(name, tensor) for name, tensor in changed)
    assert first != second


def test_weights_digest_does_not_depend_on_the_order_of_tensors():
    named = [(f"w{i}", sample(shape=(i + 1, 3))) for i in range(5)]
    assert weights_digest(named) == weights_digest(named[::-1])
    assert weights_digest(named) == combined(tensor_digest(*pair) for pair in named)
    assert weights_digest(named[:4]) != weights_digest(named)


def test_swapped_tensors_change_the_weights_digest():
    a, b = torch.zeros(3), torch.ones(3)
    assert weights_digest([("v", a), ("w", b)]) != weights_digest([("v", b), ("w", a)])


def test_block_size_thread_count_and_memory_layout_do_not_matter(monkeypatch):
    tensor = sample(torch.bfloat16, (401, 331))
    before = tensor_digest("w", tensor)
    assert tensor_digest("w", tensor.T.contiguous().T) == before
    with threads(2):
        assert tensor_digest("w", tensor) == before
    monkeypatch.setattr(words_on_cpu, "BLOCK", 7)
    for many, count in ((1, 1), (3, 2)):
        monkeypatch.setattr(words_on_cpu, "MANY", many)
        with threads(count):
            assert tensor_digest("w", tensor) == before
    assert tensor_digest("w", tensor[:20]) == by_hand("w", tensor[:20], words_of(tensor[:20]))


@pytest.mark.parametrize("broken", [float("nan"), -float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_what_is_not_finite_is_found_wherever_it_is(dtype, broken):
    largest = torch.finfo(dtype).max
    tensor = torch.tensor([largest, -largest, 0.0, -0.0], dtype=dtype).repeat(9)
    assert digest_and_finiteness("w", tensor)[1]
    for place in range(len(tensor)):
        other = tensor.clone()
        other[place] = broken
        assert not digest_and_finiteness("w", other)[1]


def test_keys_of_a_model_with_many_experts_are_made_once():
    names = [f"model.layers.{i}.mlp.experts.{j}.w" for i in range(48) for j in range(3 * 128)]
    before = weights_hash._keyed.cache_info()
    for _ in range(2):
        for name in names:
            weights_hash._keyed(name, torch.bfloat16, (2, 3), torch.device("cpu"))
    after = weights_hash._keyed.cache_info()
    assert after.misses - before.misses == len(names)
    assert after.hits - before.hits == len(names)


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.bool])
def test_what_is_no_float_is_finite(dtype):
    tensor = torch.full((99,), -1).to(dtype)  # all bits set
    assert digest_and_finiteness("w", tensor)[1]


@pytest.mark.parametrize("shape", [(), (0,), (0, 4)])
def test_scalars_and_empty_tensors_have_digests(shape):
    tensor = torch.zeros(shape)
    assert tensor_digest("w", tensor) == by_hand("w", tensor, [0] * tensor.numel())
    assert len(content_of([("w", tensor)]).digest) == 64


def test_digest_is_16_hex_digits_and_wraps():
    assert combined([2**64 - 1, 3]) == "0000000000000002"


def test_content_digest_is_the_sha256_of_names_types_shapes_and_bytes():
    tensor = sample(torch.float16)
    text = b"w\x1ftorch.float16\x1f(3, 5)\x1f" + struct.pack(
        "<15h", *tensor.view(torch.int16).flatten().tolist()
    )
    assert content_of([("w", tensor)]).digest == hashlib.sha256(text).hexdigest()


def test_sums_tell_which_tensors_differ_and_change_no_digest():
    pairs = {"a": torch.arange(9, dtype=torch.bfloat16), "b": torch.ones(3, 3), "c": torch.ones(9)}
    digest, before = content_of(pairs.items())
    assert digest == content_of(pairs.items()).digest
    assert before.keys() == pairs.keys()
    assert all(0 <= x < 2**64 for x in before.values())
    assert before["b"] != before["c"], "the same bytes in another shape"
    pairs["a"] = pairs["a"].clone()
    pairs["a"][8] = 1.0  # beyond the last whole word
    after = content_of(pairs.items()).sums
    assert [name for name in pairs if before[name] != after[name]] == ["a"]


def test_content_digest_depends_on_the_order_given():
    pairs = [("v", torch.zeros(2)), ("w", torch.ones(2))]
    assert content_of(pairs).digest != content_of(pairs[::-1]).digest


def test_tensors_are_left_as_they_were():
    tensor = sample()
    before = tensor.clone()
    weights_digest([("w", tensor)])
    content_of([("w", tensor)])
    assert tensor.equal(before)


@pytest.mark.parametrize("place", [*range(19), -1])
@pytest.mark.parametrize("broken", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [*TYPES, torch.float8_e5m2])
def test_one_entry_that_is_not_finite_is_found_wherever_it_stands(dtype, broken, place):
    tensor = torch.full((21,), torch.finfo(dtype).max, dtype=torch.float64).to(dtype)
    tensor[::2] = torch.finfo(dtype).min
    assert digest_and_finiteness("w", tensor) == (tensor_digest("w", tensor), True)
    tensor[place] = broken
    assert digest_and_finiteness("w", tensor) == (tensor_digest("w", tensor), False)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8, torch.bool])
def test_whole_numbers_are_finite_whatever_their_bits(dtype):
    ones = torch.full((160,), -1).to(dtype)
    assert digest_and_finiteness("w", ones)[1]
