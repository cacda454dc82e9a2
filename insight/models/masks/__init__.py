"""Masks as descriptions: which keys a query sees, and the cheapest calls that compute just those."""

from insight.models.masks.base import Attend, Mask
from insight.models.masks.bidirectional import BidirectionalMask
from insight.models.masks.cached import PositionMask
from insight.models.masks.causal import CausalMask
from insight.models.masks.documents import DocumentMask, causal_mask, document_mask
from insight.models.masks.padding import PaddingMask, padding_mask
from insight.models.masks.prefix import PrefixMask

__all__ = [
    "Attend",
    "BidirectionalMask",
    "CausalMask",
    "DocumentMask",
    "Mask",
    "PaddingMask",
    "PositionMask",
    "PrefixMask",
    "causal_mask",
    "document_mask",
    "padding_mask",
]
