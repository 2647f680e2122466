import hashlib
import itertools
import math

import pytest
import torch

from merge_core import mask
from merge_core.mask import kept, kept_each, key_for
from merge_core.testing import threads

N = 100_000
WORD = 2**32 - 1
KEY = key_for(7, "model.layers.0.mlp.up_proj.weight", "parent")


def lowbias32(x):
    """C. Wellons, "Hash Function Prospector" (2018): the function of lowest bias found there."""
    x = (x ^ x >> 16) * 0x7FEB352D & WORD
    x = (x ^ x >> 15) * 0x846CA68B & WORD
    return x ^ x >> 16


def word(key, index):
    """The 32 bits of one element, in Python's own integers."""
    index_high, index_low = divmod(index, 2**32)
    x = lowbias32(index_low * 0x9E3779B1 + key & WORD)
    return lowbias32((x ^ key >> 32 ^ index_high) + 0x9E3779B9 & WORD)


def unsigned(bits):
    return [x & WORD for x in bits.tolist()]


def packed(bits):
    """Eight bits to a byte, the first highest."""
    digits = "".join("01"[bit] for bit in bits.tolist())
    return int(digits, 2).to_bytes(len(digits) // 8, "big")


def test_golden_mask():
    # Made once with `word` above and density 0.3: an independent program, in Python's own integers.
    bits = kept(KEY, 0.3, 4096)
    assert hashlib.sha256(packed(bits)).hexdigest() == (
        "4bfb9c17b01d5ee86c48ae7755d6d17b845235e5b52302e46fd527b9d3341fb6"
    )
    assert bits.tolist() == [word(KEY, i) < round(0.3 * 2**32) for i in range(4096)]


def test_golden_key():
    # By hand: BLAKE2b of the parts joined by the unit separator, 8 bytes, big-endian.
    text = b"7\x1fmodel.layers.0.mlp.up_proj.weight\x1fparent"
    assert int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") == KEY


def test_key_changes_with_seed_tensor_and_parent():
    parts = [(0, 1), ("a", "b", "a.b"), ("p", "q")]
    keys = {key_for(*chosen) for chosen in itertools.product(*parts)}
    assert len(keys) == 12


@pytest.mark.parametrize("start", [0, 2**20, 2**31 - 2**20, 2**31, 2**32 - 2**20, 2**32, 2**35])
def test_bits_are_those_of_the_hash_at_any_place(start):
    bits = mask._bits(KEY, start, start + 50, "cpu")
    assert unsigned(bits) == [word(KEY, start + i) for i in range(50)]


def test_bit_depends_on_key_and_index_only_and_not_on_how_many_are_drawn():
    long = kept(KEY, 0.5, 2**20 + 1000)  # two blocks
    for count in (1, 7, 2**16, 2**20 - 1, 2**20, 2**20 + 1):
        assert kept(KEY, 0.5, count).equal(long[:count])
    around = range(2**20 - 20, 2**20 + 20)
    assert long[around.start : around.stop].tolist() == [word(KEY, i) < 2**31 for i in around]


def test_block_size_does_not_matter(monkeypatch):
    before = kept(KEY, 0.4, 5000)
    monkeypatch.setattr(mask, "_BLOCK", 2**7)
    assert kept(KEY, 0.4, 5000).equal(before)


def test_thread_count_does_not_matter():
    with threads(1):
        one = kept(KEY, 0.5, N)
    with threads(2):
        assert kept(KEY, 0.5, N).equal(one)


@pytest.mark.parametrize("density", [0.001, 0.1, 0.5, 0.77, 0.999])
def test_share_kept_is_the_density_within_binomial_error(density):
    share = float(kept(KEY, density, 10 * N).float().mean())
    stderr = (density * (1 - density) / (10 * N)) ** 0.5
    assert abs(share - density) <= 4 * stderr


def test_density_1_keeps_all_and_a_density_below_the_resolution_keeps_none():
    assert bool(kept(KEY, 1.0, N).all())
    assert not bool(kept(KEY, 2**-34, N).any())


def test_entries_kept_at_a_density_are_kept_at_every_higher_one():
    masks = [kept(KEY, density, N) for density in (0.2, 0.5, 0.8)]
    assert not bool((masks[0] & ~masks[1]).any())
    assert not bool((masks[1] & ~masks[2]).any())


def correlation(a, b):
    return float(torch.corrcoef(torch.stack([a.float(), b.float()]))[0, 1])


KEYS = {
    "other parent": key_for(7, "model.layers.0.mlp.up_proj.weight", "other"),
    "other tensor": key_for(7, "model.layers.1.mlp.up_proj.weight", "parent"),
    "next low word": KEY + 1,
    "next high word": KEY ^ 2**32,
    "top bit": KEY ^ 2**63,
    "words swapped": (KEY & WORD) << 32 | KEY >> 32,
}


@pytest.mark.parametrize("name", KEYS)
def test_two_keys_give_uncorrelated_masks(name):
    # a correlation of independent columns has a standard error of 1 / sqrt(n)
    assert abs(correlation(kept(KEY, 0.5, N), kept(KEYS[name], 0.5, N))) < 4 / math.sqrt(N)


@pytest.mark.parametrize("lag", [1, 2, 3, 64, 1000, 4096])
def test_entries_of_one_mask_are_uncorrelated(lag):
    bits = kept(KEY, 0.5, N)
    assert abs(correlation(bits[lag:], bits[:-lag])) < 4 / math.sqrt(N - lag)


@pytest.mark.parametrize("width", [2, 16, 100, 1024])
def test_every_column_of_a_matrix_has_its_share(width):
    rows = N // width
    shares = kept(KEY, 0.5, rows * width).reshape(rows, width).float().mean(0)
    # the largest of up to 1,024 columns; 5 standard errors are passed by one column in 1.7 million
    assert float((shares - 0.5).abs().max()) <= 5 * 0.5 / math.sqrt(rows)


def each(density, count):
    return kept_each(KEY, torch.full((count,), density, dtype=torch.float64))


@pytest.mark.parametrize("density", [2**-34, 0.001, 0.3, 0.5, 0.77, 1 - 2**-32, 1.0])
def test_one_probability_for_all_gives_the_mask_of_that_density(density):
    assert each(density, N).equal(kept(KEY, density, N))


def test_blocks_of_probabilities_are_those_of_the_mask(monkeypatch):
    monkeypatch.setattr(mask, "_BLOCK", 2**7)
    assert each(0.4, 1000).equal(kept(KEY, 0.4, 1000))


def test_every_element_is_kept_with_its_own_probability():
    densities = torch.tensor([0.0, 0.2, 0.7, 1.0], dtype=torch.float64)
    bits = kept_each(KEY, densities.repeat(N))
    for i, density in enumerate(densities.tolist()):
        share = float(bits[i::4].double().mean())
        stderr = (density * (1 - density) / N) ** 0.5
        assert abs(share - density) <= 4 * stderr
        assert bits[i::4].equal(kept(KEY, density, 4 * N)[i::4])


def test_no_probability_gives_an_empty_mask():
    assert each(0.5, 0).tolist() == []
