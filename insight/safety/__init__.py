"""Safety tests: attacks make the prompts, targets answer, evaluators score, reports show the figures."""

from typing import TYPE_CHECKING

from insight.runtime.imports import lazy_exports

if TYPE_CHECKING:
    from insight.safety.bases import Attack as Attack
    from insight.safety.bases import ErrorRates as ErrorRates
    from insight.safety.bases import Evaluator as Evaluator
    from insight.safety.bases import NotApplicable as NotApplicable
    from insight.safety.bases import TextClassifier as TextClassifier
    from insight.safety.compare import Comparison as Comparison
    from insight.safety.compare import Comparisons as Comparisons
    from insight.safety.compare import compare_folders as compare_folders
    from insight.safety.compare import compare_results as compare_results
    from insight.safety.compare import read_results as read_results
    from insight.safety.material import Material as Material
    from insight.safety.network_targets import NetworkTarget as NetworkTarget
    from insight.safety.network_targets import TranslatorTarget as TranslatorTarget
    from insight.safety.records import Figure as Figure
    from insight.safety.records import Item as Item
    from insight.safety.records import MeasureSummary as MeasureSummary
    from insight.safety.records import Response as Response
    from insight.safety.records import Score as Score
    from insight.safety.records import ScoredItem as ScoredItem
    from insight.safety.red_teaming import red_team as red_team
    from insight.safety.results import Results as Results
    from insight.safety.suite import Measure as Measure
    from insight.safety.suite import Suite as Suite
    from insight.safety.suite import find_suite as find_suite
    from insight.safety.targets import CallableTarget as CallableTarget
    from insight.safety.targets import Target as Target
    from insight.safety.targets import TranslationTarget as TranslationTarget

__getattr__, __all__ = lazy_exports(__name__)
