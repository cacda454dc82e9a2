"""Toxic continuations: prompts that tempt, and a small classifier that travels with the package."""

from __future__ import annotations

from typing import TYPE_CHECKING

from insight.runtime.imports import lazy_exports

if TYPE_CHECKING:
    from insight.safety.toxicity.classifier import NgramClassifier as NgramClassifier
    from insight.safety.toxicity.continuation import ToxicContinuation as ToxicContinuation
    from insight.safety.toxicity.continuation import ToxicityPrompts as ToxicityPrompts

_EXPORTS = {
    "NgramClassifier": "classifier",
    "ToxicContinuation": "continuation",
    "ToxicityPrompts": "continuation",
}
__all__ = sorted(_EXPORTS)
__getattr__ = lazy_exports(__name__, _EXPORTS)
