"""How attention and the input are told token positions: one file a kind."""

from insight.models.positions.base import NoPosition, Position, PositionEncoding
from insight.models.positions.biases import Alibi, RelativeBias
from insight.models.positions.input_positions import InputPosition, LearnedPosition, SinusoidalPosition
from insight.models.positions.rope import InterleavedRope, Rope
from insight.models.positions.scaling import (
    DynamicNTKScaling,
    LinearScaling,
    Llama3Scaling,
    LongRopeScaling,
    RopeScaling,
    YarnScaling,
)

__all__ = [
    "Alibi",
    "DynamicNTKScaling",
    "InputPosition",
    "InterleavedRope",
    "LearnedPosition",
    "LinearScaling",
    "Llama3Scaling",
    "LongRopeScaling",
    "NoPosition",
    "Position",
    "PositionEncoding",
    "RelativeBias",
    "Rope",
    "RopeScaling",
    "SinusoidalPosition",
    "YarnScaling",
]
