"""A model → its quality, speed and size, measured so that two of them can be compared."""

from typing import TYPE_CHECKING

from insight.runtime.imports import lazy_exports

if TYPE_CHECKING:
    from insight.optimization.measurement.comparison import Comparison as Comparison
    from insight.optimization.measurement.comparison import ComparisonSettings as ComparisonSettings
    from insight.optimization.measurement.comparison import ModelMeasurement as ModelMeasurement
    from insight.optimization.measurement.comparison import compare_models as compare_models
    from insight.optimization.measurement.footprint import Footprint as Footprint
    from insight.optimization.measurement.footprint import disk_bytes as disk_bytes
    from insight.optimization.measurement.footprint import measure_footprint as measure_footprint
    from insight.optimization.measurement.footprint import weight_bytes as weight_bytes
    from insight.optimization.measurement.quality import Quality as Quality
    from insight.optimization.measurement.quality import compare_quality as compare_quality
    from insight.optimization.measurement.quality import measure_quality as measure_quality
    from insight.optimization.measurement.speed import Speed as Speed
    from insight.optimization.measurement.speed import measure_speed as measure_speed
    from insight.optimization.measurement.text import EvaluationText as EvaluationText
    from insight.optimization.measurement.text import MeasuredText as MeasuredText

_EXPORTS = {
    "Comparison": "comparison",
    "ComparisonSettings": "comparison",
    "EvaluationText": "text",
    "Footprint": "footprint",
    "MeasuredText": "text",
    "ModelMeasurement": "comparison",
    "Quality": "quality",
    "Speed": "speed",
    "compare_models": "comparison",
    "compare_quality": "quality",
    "disk_bytes": "footprint",
    "measure_footprint": "footprint",
    "measure_quality": "quality",
    "measure_speed": "speed",
    "weight_bytes": "footprint",
}
__all__ = sorted(_EXPORTS)
__getattr__ = lazy_exports(__name__, _EXPORTS)
