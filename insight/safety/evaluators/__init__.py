"""Evaluators of the attacks in ``attacks/``."""

from insight.safety.evaluators.exposure import Exposure
from insight.safety.evaluators.nonce import NonceWritten
from insight.safety.evaluators.verbatim import VerbatimContinuation

__all__ = ["Exposure", "NonceWritten", "VerbatimContinuation"]
