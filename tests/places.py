"""Where a tensor stands for gradients, told from its name alone."""

from merge_core.architecture.layers import Layers


def place(stack: Layers, tensor: str) -> float:
    """First layer 0, last layer 1, that of a one-layer model 1, and 0 outside the layers."""
    index = stack.index(tensor)
    if index is None:
        return 0.0
    return index / (stack.count - 1) if stack.count > 1 else 1.0
