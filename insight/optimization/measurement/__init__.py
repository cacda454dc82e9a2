"""Measurements of quality, speed and size, by which models can be compared."""

from typing import TYPE_CHECKING

from insight.runtime.imports import lazy_exports

if TYPE_CHECKING:
    from insight.optimization.measurement.comparison import Comparison as Comparison
    from insight.optimization.measurement.comparison import ModelMeasurement as ModelMeasurement
    from insight.optimization.measurement.comparison import compare_models as compare_models
    from insight.optimization.measurement.footprint import Footprint as Footprint
    from insight.optimization.measurement.footprint import disk_bytes as disk_bytes
    from insight.optimization.measurement.footprint import measure_footprint as measure_footprint
    from insight.optimization.measurement.footprint import weight_bytes as weight_bytes
    from insight.optimization.measurement.quality import EvaluationText as EvaluationText
    from insight.optimization.measurement.quality import MeasuredText as MeasuredText
    from insight.optimization.measurement.quality import Quality as Quality
    from insight.optimization.measurement.quality import compare_quality as compare_quality
    from insight.optimization.measurement.quality import measure_quality as measure_quality
    from insight.optimization.measurement.settings import ComparisonSettings as ComparisonSettings
    from insight.optimization.measurement.speed import Speed as Speed
    from insight.optimization.measurement.speed import measure_speed as measure_speed

__getattr__, __all__ = lazy_exports(__name__)
