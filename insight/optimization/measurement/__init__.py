"""A model → its quality, speed and size, measured so that two of them can be compared."""

from __future__ import annotations

from typing import TYPE_CHECKING

from insight.runtime.lazy import lazy_exports

if TYPE_CHECKING:
    from insight.optimization.measurement.quality import Quality as Quality
    from insight.optimization.measurement.quality import compare_quality as compare_quality
    from insight.optimization.measurement.quality import measure_quality as measure_quality
    from insight.optimization.measurement.speed import Speed as Speed
    from insight.optimization.measurement.speed import measure_speed as measure_speed

_EXPORTS = {
    "Quality": "quality",
    "Speed": "speed",
    "compare_quality": "quality",
    "measure_quality": "quality",
    "measure_speed": "speed",
}
__all__ = sorted(_EXPORTS)
__getattr__ = lazy_exports(__name__, _EXPORTS)
