"""Published networks as plain configurations: one file an architecture."""

from insight.models.presets.preset import Preset
from insight.models.presets.table import PRESETS

__all__ = ["PRESETS", "Preset"]
