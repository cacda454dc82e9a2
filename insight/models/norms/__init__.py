"""Normalisation layers: one file a kind."""

from insight.models.norms.base import Norm
from insight.models.norms.layer import LayerNorm
from insight.models.norms.offset_rms import OffsetRMSNorm
from insight.models.norms.rms import RMSNorm, rms_norm

__all__ = ["LayerNorm", "Norm", "OffsetRMSNorm", "RMSNorm", "rms_norm"]
