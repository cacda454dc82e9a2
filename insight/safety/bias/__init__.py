"""Bias as preference between minimal pairs."""

from __future__ import annotations

from insight.safety.bias.pairs import MinimalPair, read_pairs
from insight.safety.bias.preference import StereotypePairs, StereotypePreference

__all__ = ["MinimalPair", "StereotypePairs", "StereotypePreference", "read_pairs"]
