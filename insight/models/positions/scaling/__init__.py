"""Longer contexts for rotary positions: one file a scaling."""

from insight.models.positions.scaling.base import RopeScaling
from insight.models.positions.scaling.dynamic_ntk import DynamicNTKScaling
from insight.models.positions.scaling.linear import LinearScaling
from insight.models.positions.scaling.llama3 import Llama3Scaling
from insight.models.positions.scaling.longrope import LongRopeScaling
from insight.models.positions.scaling.yarn import YarnScaling

__all__ = [
    "DynamicNTKScaling",
    "LinearScaling",
    "Llama3Scaling",
    "LongRopeScaling",
    "RopeScaling",
    "YarnScaling",
]
