"""How far two tensors are from each other."""

import torch


def difference(a, b):
    """Largest difference over largest magnitude."""
    return float((a.double() - b.double()).abs().max() / b.double().abs().max())


def ulps(a, b):
    """Largest number of steps between neighbours of the type from ``a`` to ``b``."""
    bits = (x.view(torch.int16).long() for x in (a, b))
    left, right = (torch.where(x < 0, -(x & 0x7FFF), x) for x in bits)
    return int((left - right).abs().max())
