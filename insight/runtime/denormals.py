"""Numbers too small for the usual format, which processors compute with a hundred times slower."""

from __future__ import annotations


def flush_denormals() -> bool:
    """Let torch's CPU arithmetic take numbers below 1e-38 for zero, and say whether it does.

    Softmax weights of far keys are such numbers where scores fall with the distance (ALiBi), and so are old
    averages of gradients. A thread inherits the setting from the one that starts it, so this comes before
    torch starts its own: at the start of a command. A program of your own calls it, or
    ``torch.set_flush_denormal(True)``, before its first computation.
    """
    import torch

    return torch.set_flush_denormal(True)
