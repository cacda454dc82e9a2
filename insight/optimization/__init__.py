"""Quantization of a trained model to a smaller or faster one, with measurements of its costs and gains."""

from typing import TYPE_CHECKING

from insight.runtime.imports import lazy_exports

if TYPE_CHECKING:
    from insight.optimization.config import METHODS as METHODS
    from insight.optimization.config import QuantizationConfig as QuantizationConfig
    from insight.optimization.config import plan as plan
    from insight.optimization.measurement.quality import Calibration as Calibration
    from insight.optimization.measurement.quality import Verdict as Verdict
    from insight.optimization.measurement.quality import quality_gate as quality_gate
    from insight.optimization.methods import KeptModule as KeptModule
    from insight.optimization.quantizer import Incompatibility as Incompatibility
    from insight.optimization.quantizer import OptimizationReport as OptimizationReport
    from insight.optimization.quantizer import OptimizedModel as OptimizedModel
    from insight.optimization.quantizer import Quantizer as Quantizer
    from insight.optimization.quantizer import save_artifact as save_artifact
    from insight.optimization.quantizer import this_target as this_target
    from insight.optimization.search import QuantizationSearch as QuantizationSearch
    from insight.optimization.search import SearchResult as SearchResult

_MOVED = {
    "ModelOptimizer": "insight.optimization.Quantizer",
    "load_artifact": "insight.checkpoints.artifact.load_artifact",
    "load_model": "insight.load_model",
}
__getattr__, __all__ = lazy_exports(__name__, _MOVED)
