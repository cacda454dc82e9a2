"""Position encodings of attention and of the input."""

from insight.models.positions.base import NoPosition as NoPosition
from insight.models.positions.base import Position as Position
from insight.models.positions.base import PositionEncoding as PositionEncoding
from insight.models.positions.base import PositionTables as PositionTables
from insight.models.positions.base import QueryTemperature as QueryTemperature
from insight.models.positions.biases import Alibi as Alibi
from insight.models.positions.biases import RelativeBias as RelativeBias
from insight.models.positions.input_positions import InputPosition as InputPosition
from insight.models.positions.input_positions import LearnedPosition as LearnedPosition
from insight.models.positions.input_positions import SinusoidalPosition as SinusoidalPosition
from insight.models.positions.rope import InterleavedRope as InterleavedRope
from insight.models.positions.rope import Rope as Rope
from insight.models.positions.scaling import DynamicNTKScaling as DynamicNTKScaling
from insight.models.positions.scaling import LinearScaling as LinearScaling
from insight.models.positions.scaling import Llama3Scaling as Llama3Scaling
from insight.models.positions.scaling import LongRopeScaling as LongRopeScaling
from insight.models.positions.scaling import RopeScaling as RopeScaling
from insight.models.positions.scaling import YarnScaling as YarnScaling
