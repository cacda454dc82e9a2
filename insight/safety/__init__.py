"""A model → measured risk: attacks ask, targets answer, evaluators judge, reports show."""

from __future__ import annotations

from typing import TYPE_CHECKING

from insight.runtime.lazy import lazy_exports

if TYPE_CHECKING:
    from insight.safety.attack import Attack as Attack
    from insight.safety.attack import NotApplicable as NotApplicable
    from insight.safety.classifier import ErrorRates as ErrorRates
    from insight.safety.classifier import TextClassifier as TextClassifier
    from insight.safety.evaluator import Evaluator as Evaluator
    from insight.safety.material import Material as Material
    from insight.safety.records import Figure as Figure
    from insight.safety.records import Item as Item
    from insight.safety.records import MeasureSummary as MeasureSummary
    from insight.safety.records import Response as Response
    from insight.safety.records import Score as Score
    from insight.safety.records import ScoredItem as ScoredItem

_EXPORTS = {
    "Attack": "attack",
    "ErrorRates": "classifier",
    "Evaluator": "evaluator",
    "Figure": "records",
    "Item": "records",
    "Material": "material",
    "MeasureSummary": "records",
    "NotApplicable": "attack",
    "Response": "records",
    "Score": "records",
    "ScoredItem": "records",
    "TextClassifier": "classifier",
}
__all__ = sorted(_EXPORTS)
__getattr__ = lazy_exports(__name__, _EXPORTS)
