"""Normalisation of queries and keys per head, which keeps attention scores bounded (arXiv 2302.05442)."""

from __future__ import annotations

from torch import nn

from insight.models.norms import RMSNorm
from insight.runtime.errors import ConfigError, nearest

_CHOICES = {"none": None, "rms": RMSNorm(eps=1e-6), "rms_weightless": RMSNorm(eps=1e-6, weight=False)}


def build_query_key_norm(choice: str, head_dim: int) -> nn.Module:
    """The norm over head_dim that ``qk_norm`` names: ``none``, ``rms`` or ``rms_weightless``.

    Raises:
        ConfigError: ``choice`` is none of the three.
    """
    if choice not in _CHOICES:
        match = nearest(choice, _CHOICES)
        remedy = f"did you mean {match!r}?" if match else f"use one of {', '.join(_CHOICES)}"
        raise ConfigError(f"qk_norm={choice!r} is unknown", remedy)
    norm = _CHOICES[choice]
    return nn.Identity() if norm is None else norm.build(head_dim)
