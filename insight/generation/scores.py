"""The score of a finished hypothesis by its length, and the rules by which a search stops.

Each length rule brings the stop rule that was published with it; any other can be chosen.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import ClassVar, Literal

from insight.runtime.component import Component
from insight.runtime.errors import ConfigError, did_you_mean
from insight.runtime.numbers import require_number

NEVER = float("-inf")


@dataclass
class Progress:
    """How far the search of one sentence is, for a :class:`StopRule`.

    Attributes:
        length_rule: How finished hypotheses are scored.
        beam_size: Width of the beam.
        num_best: Finished hypotheses that were asked for.
        max_length: Most tokens of a hypothesis.
        length: Tokens of the running hypotheses.
        scores: Scores of the finished hypotheses, best first, at most ``beam_size``.
        num_finished: Hypotheses that have finished.
        best_running: Sum of log-probabilities of the best running hypothesis.
        best_has_ended: Whether the best extension of some step was an end.
    """

    length_rule: LengthRule
    beam_size: int
    num_best: int
    max_length: int
    length: int = 0
    scores: list[float] = field(default_factory=list)
    num_finished: int = 0
    best_running: float = NEVER
    best_has_ended: bool = False

    def best_possible(self, longest: int) -> float:
        """A bound of the scores that running hypotheses can reach with at most ``longest`` tokens."""
        rule = self.length_rule
        shortest = min(self.length + rule.counts_end, longest)
        return rule.best_score(self.best_running, shortest, longest)


# ------------------------------------------------------------ when a search stops


@dataclass(frozen=True)
class StopRule(Component, ABC):
    """When the search of a sentence ends before its length limit; beam 1 always ends at its first end."""

    narrows: ClassVar[bool] = False
    """Whether every finished hypothesis leaves one place less in the beam."""

    @property
    @abstractmethod
    def name(self) -> str:
        """The rule as it stands in a decoding signature."""

    @property
    def token_margin(self) -> float | None:
        """Tokens less likely than the best of a step by more than this (in nats) are left out."""
        return None

    @abstractmethod
    def is_done(self, progress: Progress) -> bool:
        """Whether the sentence needs no further step."""


@dataclass(frozen=True)
class ExactStop(StopRule):
    """Stops when no running hypothesis can end better than the finished ones that are to be returned.

    The result is that of a search which never stops early, since sums of log-probabilities only fall.
    """

    name = "exact"

    def is_done(self, progress: Progress) -> bool:
        if len(progress.scores) < progress.num_best:
            return False
        return progress.scores[progress.num_best - 1] >= progress.best_possible(progress.max_length)


@dataclass(frozen=True)
class EnoughFinished(StopRule):
    """Stops as soon as ``round(beam_size * patience)`` hypotheses have finished.

    With a patience of 1 it is ``early_stopping=True`` of transformers; other values are those of Kasai et al.
    2022, arXiv 2204.05424.

    Args:
        patience: Factor of the beam's width.
    """

    patience: float = 1.0

    def __post_init__(self) -> None:
        require_number("patience", self.patience, 1, above=0, at_most=1e6)

    @property
    def name(self) -> str:
        return f"finished:{self.patience:g}x"

    def is_done(self, progress: Progress) -> bool:
        return progress.num_finished >= max(1, round(progress.beam_size * self.patience))


@dataclass(frozen=True)
class CurrentLengthBound(StopRule):
    """Stops when the beam's finished hypotheses beat the best running one at its present length.

    This is ``early_stopping=False`` of transformers. With a length rule that favours long texts it can stop
    too early.
    """

    name = "bound:now"

    def is_done(self, progress: Progress) -> bool:
        return _beats(progress, progress.length, progress.length)


@dataclass(frozen=True)
class LongestLengthBound(StopRule):
    """Stops when the beam's finished hypotheses beat the best running one at any length.

    This is ``early_stopping="never"`` of transformers: like :class:`ExactStop`, but it waits for as many
    finished hypotheses as the beam is wide.
    """

    name = "bound:longest"

    def is_done(self, progress: Progress) -> bool:
        return _beats(progress, progress.length, progress.max_length)


@dataclass(frozen=True)
class PrunedStop(StopRule):
    """Prunes as in Wu et al. 2016 (arXiv 1609.08144, section 7) and stops when nothing is left.

    A step leaves out tokens whose log-probability is more than ``margin`` below that of the best token, and
    hypotheses whose score is more than ``margin`` below the best finished one are dropped. The paper does not
    say how a running hypothesis is scored: here as if it ended at its present length.

    Args:
        margin: The margin in nats.
    """

    margin: float = 3.0

    def __post_init__(self) -> None:
        require_number("margin", self.margin, 3, above=0, at_most=1e6)

    @property
    def name(self) -> str:
        return f"pruned:{self.margin:g}"

    @property
    def token_margin(self) -> float | None:
        return self.margin

    def is_done(self, progress: Progress) -> bool:
        if not progress.scores:
            return False
        running = progress.length_rule.score(progress.best_running, max(progress.length, 1))
        return running < progress.scores[0] - self.margin


@dataclass(frozen=True)
class NarrowingStop(StopRule):
    """Every finished hypothesis leaves the beam one place narrower, and the last one stops it, as in Marian.

    A step looks only at as many extensions as the beam still has places, ended ones among them.
    """

    name = "narrowing"
    narrows = True

    def is_done(self, progress: Progress) -> bool:
        return progress.num_finished >= progress.beam_size


@dataclass(frozen=True)
class CTranslate2Stop(EnoughFinished):
    """Stops when ``round(beam_size * patience)`` hypotheses have finished, as in CTranslate2.

    Without length normalisation it stops instead when the best extension has been an end and as many
    hypotheses have finished as are to be returned.

    Args:
        patience: Factor of the beam's width.
    """

    @property
    def name(self) -> str:
        return f"ctranslate2:{self.patience:g}x"

    def is_done(self, progress: Progress) -> bool:
        if not progress.length_rule.normalises:
            return progress.best_has_ended and progress.num_finished >= progress.num_best
        return super().is_done(progress)


def _beats(progress: Progress, shortest: int, longest: int) -> bool:
    """Whether a beam full of finished hypotheses is at least as good as the best running one."""
    if len(progress.scores) < progress.beam_size:
        return False
    bound = progress.length_rule.best_score(progress.best_running, shortest, longest)
    return progress.scores[-1] >= bound


# ------------------------------------------------------------ how a finished hypothesis is scored


@dataclass(frozen=True)
class LengthRule(Component, ABC):
    """How the score of a finished hypothesis follows from its sum of log-probabilities and its length."""

    counts_end: ClassVar[bool] = True
    """Whether the end token counts as a token of the length."""
    published_stop: ClassVar[StopRule] = ExactStop()
    """The stop rule that belongs to it."""
    form: ClassVar[str] = ""

    def __post_init__(self) -> None:
        for option in fields(self):
            require_number(option.name, getattr(self, option.name), 1, at_least=-20, at_most=20)

    @abstractmethod
    def score(self, total: float, length: int) -> float:
        """The score of a hypothesis with this sum of log-probabilities and length in tokens.

        The sum includes the end token; whether the length does is told by :attr:`counts_end`.
        """

    def best_score(self, total: float, shortest: int, longest: int) -> float:
        """The best score of a sum at any of the lengths from ``shortest`` to ``longest``."""
        return max(self.score(total, shortest), self.score(total, longest))  # the rules are monotonic

    @property
    def normalises(self) -> bool:
        """Whether the length changes the score."""
        return any(getattr(self, option.name) for option in fields(self))

    @property
    def formula(self) -> str:
        """The formula as it stands in a decoding signature."""
        return self.form.format(**{option.name: f"{getattr(self, option.name):g}" for option in fields(self)})


@dataclass(frozen=True)
class MeanLogProbability(LengthRule):
    """``sum / L^power``, the end token counted, as transformers scores; stops exactly.

    Args:
        power: Exponent of the length: 0 scores by the sum, 1 by the mean.
    """

    power: float = 1.0
    form = "sum/L^{power}"

    def score(self, total: float, length: int) -> float:
        return total / math.pow(length, self.power)


@dataclass(frozen=True)
class GNMTLength(LengthRule):
    """``sum / ((5 + L) / 6)^alpha``, the end token counted (Wu et al. 2016, arXiv 1609.08144).

    Args:
        alpha: Exponent; 0 scores by the sum.
    """

    alpha: float = 0.6
    form = "sum/((5+L)/6)^{alpha}"
    published_stop = PrunedStop()

    def score(self, total: float, length: int) -> float:
        return total / math.pow((5 + length) / 6, self.alpha)


@dataclass(frozen=True)
class MarianLength(LengthRule):
    """``(sum - word_penalty * L) / L^normalize``, the end token counted, as Marian scores.

    Args:
        normalize: Exponent of the length; 0 does not normalise.
        word_penalty: Amount that every token costs.
    """

    normalize: float = 1.0
    word_penalty: float = 0.0
    form = "(sum-{word_penalty}L)/L^{normalize}"
    published_stop = NarrowingStop()

    def score(self, total: float, length: int) -> float:
        return (total - self.word_penalty * length) / math.pow(length, self.normalize)

    def best_score(self, total: float, shortest: int, longest: int) -> float:
        if not self.word_penalty:
            return super().best_score(total, shortest, longest)
        return max(self.score(total, length) for length in range(shortest, longest + 1))


@dataclass(frozen=True)
class CTranslate2Length(LengthRule):
    """``sum / L^length_penalty`` without the end token, as CTranslate2 scores; an empty text has length 1.

    Args:
        length_penalty: Exponent of the length.
    """

    length_penalty: float = 1.0
    counts_end = False
    form = "sum/L^{length_penalty}"
    published_stop = CTranslate2Stop()

    def score(self, total: float, length: int) -> float:
        return total / math.pow(max(length, 1), self.length_penalty)


LengthRuleName = Literal["mean", "gnmt", "marian", "ctranslate2"]


def find_length_rule(name: LengthRuleName, power: float | None = None) -> LengthRule:
    """The length rule with this name and exponent; without one its own.

    Raises:
        ConfigError: There is no such rule, or the exponent is too far from 0.
    """
    rules: dict[str, Callable[..., LengthRule]] = {
        "mean": MeanLogProbability,
        "gnmt": GNMTLength,
        "marian": MarianLength,
        "ctranslate2": CTranslate2Length,
    }
    if name not in rules:
        remedy = did_you_mean(name, rules, f"choose one of {', '.join(rules)}")
        raise ConfigError("is unknown", remedy, option="length_rule", value=name)
    require_number("length_penalty", power, 1, optional=True, at_least=-20, at_most=20)
    return rules[name](*([] if power is None else [power]))
