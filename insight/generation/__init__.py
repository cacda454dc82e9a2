"""Scores → text: sampling settings, the sampler, one engine for one prompt or many, likelihoods."""

from typing import TYPE_CHECKING

from insight.runtime.imports import lazy_exports

if TYPE_CHECKING:
    from insight.generation.constraints import Sentence as Sentence
    from insight.generation.generator import Generation as Generation
    from insight.generation.generator import TextGenerator as TextGenerator
    from insight.generation.generator import TextStream as TextStream
    from insight.generation.generator import generate as generate
    from insight.generation.generator import generate_batch as generate_batch
    from insight.generation.generator import stream as stream
    from insight.generation.modes import evaluation_mode as evaluation_mode
    from insight.generation.sampler import filtered_log_probabilities as filtered_log_probabilities
    from insight.generation.sampler import sample as sample
    from insight.generation.sampler import sample_rows as sample_rows
    from insight.generation.scores import CTranslate2Length as CTranslate2Length
    from insight.generation.scores import CTranslate2Stop as CTranslate2Stop
    from insight.generation.scores import CurrentLengthBound as CurrentLengthBound
    from insight.generation.scores import EnoughFinished as EnoughFinished
    from insight.generation.scores import ExactStop as ExactStop
    from insight.generation.scores import GNMTLength as GNMTLength
    from insight.generation.scores import LengthRule as LengthRule
    from insight.generation.scores import LongestLengthBound as LongestLengthBound
    from insight.generation.scores import MarianLength as MarianLength
    from insight.generation.scores import MeanLogProbability as MeanLogProbability
    from insight.generation.scores import NarrowingStop as NarrowingStop
    from insight.generation.scores import PrunedStop as PrunedStop
    from insight.generation.scores import StopRule as StopRule
    from insight.generation.scoring import log_likelihoods as log_likelihoods
    from insight.generation.scoring import translation_log_likelihoods as translation_log_likelihoods
    from insight.generation.search import Hypothesis as Hypothesis
    from insight.generation.search import SearchSettings as SearchSettings
    from insight.generation.search import beam_search as beam_search
    from insight.generation.settings import GenerationSettings as GenerationSettings

__getattr__, __all__ = lazy_exports(__name__)
