"""How a network knows the order of its tokens: one file an encoding."""

from insight.models.positions.base import Position, PositionEncoding
from insight.models.positions.none import NoPosition
from insight.models.positions.rope import Rope

__all__ = ["NoPosition", "Position", "PositionEncoding", "Rope"]
