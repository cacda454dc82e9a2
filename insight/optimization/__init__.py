"""A trained model → a smaller or faster one, what was done to it, and the proof of what that costs."""

from typing import TYPE_CHECKING

from insight.runtime.imports import lazy_exports

if TYPE_CHECKING:
    from insight.optimization.artifact import load_artifact as load_artifact
    from insight.optimization.artifact import save_artifact as save_artifact
    from insight.optimization.calibration import Calibration as Calibration
    from insight.optimization.config import QuantizationConfig as QuantizationConfig
    from insight.optimization.gate import Verdict as Verdict
    from insight.optimization.gate import quality_gate as quality_gate
    from insight.optimization.loading import load_model as load_model
    from insight.optimization.methods import METHODS as METHODS
    from insight.optimization.optimizer import Incompatibility as Incompatibility
    from insight.optimization.optimizer import ModelOptimizer as ModelOptimizer
    from insight.optimization.optimizer import OptimizedModel as OptimizedModel
    from insight.optimization.quantizer import Quantizer as Quantizer
    from insight.optimization.report import KeptModule as KeptModule
    from insight.optimization.report import OptimizationReport as OptimizationReport
    from insight.optimization.search import QuantizationSearch as QuantizationSearch
    from insight.optimization.search import SearchResult as SearchResult
    from insight.optimization.target import this_target as this_target

_EXPORTS = {
    "METHODS": "methods",
    "Calibration": "calibration",
    "Incompatibility": "optimizer",
    "KeptModule": "report",
    "ModelOptimizer": "optimizer",
    "OptimizationReport": "report",
    "OptimizedModel": "optimizer",
    "QuantizationConfig": "config",
    "QuantizationSearch": "search",
    "Quantizer": "quantizer",
    "SearchResult": "search",
    "Verdict": "gate",
    "load_artifact": "artifact",
    "load_model": "loading",
    "quality_gate": "gate",
    "save_artifact": "artifact",
    "this_target": "target",
}
__all__ = sorted(_EXPORTS)
__getattr__ = lazy_exports(__name__, _EXPORTS)
