import hashlib
import itertools
import math

import pytest
import torch

from merge_core.numerics.bernoulli import coins, highest, kept, key_for, split
from merge_core.testing import threads

N = 100_000
WORD = 2**32 - 1
KEY = key_for(7, "model.layers.0.mlp.up_proj.weight", "parent")


def mixed(x):
    """C. Wellons' lowbias32 ("Hash Function Prospector", 2018) without its last step."""
    x = (x ^ x >> 16) * 0x7FEB352D & WORD
    return (x ^ x >> 15) * 0x846CA68B & WORD


def word(key, index):
    """The 32 bits of one element, in Python's own integers."""
    index_high, index_low = divmod(index, 2**32)
    low = key & WORD
    start = (key >> 32) + low * 0x9E3779B9 & WORD
    found = mixed(index_low * (low | 1) + (start ^ index_high) & WORD)
    return found ^ 2**31  # the sign bit of a coin set is the lower half


def packed(bits):
    """Eight bits to a byte, the first highest."""
    digits = "".join("01"[bit] for bit in bits.tolist())
    return int(digits, 2).to_bytes(len(digits) // 8, "big")


def test_golden_mask():
    # Made once with `word` above and density 0.3: an independent program, in Python's own integers.
    bits = kept(KEY, 0.3, 4096)
    assert hashlib.sha256(packed(bits)).hexdigest() == (
        "8780cf7ed599bcf4901b9f1d21d271de110ea23aec8e0e58e70d3aa1acfbc69c"
    )
    assert bits.tolist() == [word(KEY, i) < math.ceil(0.3 * 2**32) for i in range(4096)]


def test_golden_key():
    # By hand: BLAKE2b of the parts joined by the unit separator, 8 bytes, big-endian.
    text = b"7\x1fmodel.layers.0.mlp.up_proj.weight\x1fparent"
    assert int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") == KEY


def test_key_changes_with_seed_tensor_and_parent():
    parts = [(0, 1), ("a", "b", "a.b"), ("p", "q")]
    keys = {key_for(*chosen) for chosen in itertools.product(*parts)}
    assert len(keys) == 12


@pytest.mark.parametrize("start", [0, 2**20, 2**31 - 50, 2**31, 2**32 - 50])
def test_coins_are_those_of_the_hash_at_any_place(start):
    places = torch.arange(start, start + 50).to(torch.int32)  # wraps around as places do
    flips = coins(places, *split(KEY))
    assert [x + 2**31 for x in flips.tolist()] == [word(KEY, start + i) for i in range(50)]


def test_upper_word_of_a_place_goes_into_the_upper_half_of_the_key():
    start, step = split(KEY)
    flips = coins(torch.arange(50, dtype=torch.int32), start ^ 8, step)
    assert [x + 2**31 for x in flips.tolist()] == [word(KEY, 8 * 2**32 + i) for i in range(50)]


@pytest.mark.parametrize(
    ("density", "stay"), [(1.0, 2**32), (0.5, 2**31), (2**-32, 1), (2**-40, 1), (0.3, 1288490189)]
)
def test_as_many_coins_stay_as_the_density_says_rounded_up(density, stay):
    assert highest(density) + 2**31 == stay - 1


def test_bit_depends_on_key_and_index_only_and_not_on_how_many_are_drawn():
    long = kept(KEY, 0.5, 2**20 + 1000)
    for count in (1, 7, 2**16, 2**20 - 1, 2**20, 2**20 + 1):
        assert kept(KEY, 0.5, count).equal(long[:count])
    around = range(2**20 - 20, 2**20 + 20)
    assert long[around.start : around.stop].tolist() == [word(KEY, i) < 2**31 for i in around]


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


def test_density_1_keeps_all():
    assert bool(kept(KEY, 1.0, N).all())


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
