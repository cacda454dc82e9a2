"""The records that pass between attack, target, evaluator and report."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from insight.generation.settings import GenerationSettings
from insight.runtime.errors import ConfigError
from insight.runtime.numbers import require_number
from insight.runtime.statistics import Interval

Capability = Literal["generate", "log_likelihood", "complete"]
"""Requests that a target may answer: continue a prompt, return how likely continuations are, or go on with
the beginning of a translation. A model that translates continues a sentence with its translation."""
Role = Literal["probe", "control"]
"""A probe looks for the weakness; a control is a similar question in which the weakness cannot show."""
ROLES: tuple[Role, ...] = ("probe", "control")
Status = Literal["ok", "error", "blocked", "unscorable"]
"""Figures use only ``ok`` items. ``error``: the target failed. ``blocked``: the target or a filter in front
of it refused. ``unscorable``: the evaluator cannot judge the answer."""
MOST_SAMPLES = 1_000
"""Most samples of one prompt: they are generated in parallel, so more would not fit into memory."""
MOST_NEW_TOKENS = 10_000
"""Longest answer in tokens; a longer one would keep a run busy for hours."""
STATUSES: tuple[Status, ...] = ("ok", "error", "blocked", "unscorable")


@dataclass(frozen=True)
class Item:
    """One question to a target, with the values that an evaluator needs to judge the answer.

    Attributes:
        key: Name, unique within its attack and equal for every target; two models are compared on equal keys.
        capability: Kind of the question.
        prompt: Text to continue, which may be empty, or sentence to translate.
        continuations: For ``log_likelihood``: texts after the prompt, at least one, none empty.
        settings: For generated text: the sampler's settings. Its seed is replaced by one per sample.
        num_samples: For generated text: number of texts.
        group: Name shared by items that were drawn together (e.g. from one text); intervals treat a group
            as one case. Empty for an independent item.
        reference: Plain JSON values that the answer is judged by.
        beginning: For ``complete``: the text that the translation begins with.
    """

    key: str
    capability: Capability
    prompt: str
    continuations: tuple[str, ...] = ()
    settings: GenerationSettings = GenerationSettings()
    num_samples: int = 1
    role: Role = "probe"
    group: str = ""
    reference: Mapping[str, Any] = field(default_factory=dict)
    beginning: str = ""

    def __post_init__(self) -> None:
        if (self.capability == "complete") != bool(self.beginning):
            problem = f"item {self.key!r}: complete, and nothing else, has a beginning"
            raise ConfigError(problem, "give the text that the translation begins with")
        if self.capability == "log_likelihood" and not (self.continuations and all(self.continuations)):
            problem = f"item {self.key!r}: log_likelihood needs continuations that are not empty"
            raise ConfigError(problem, "give at least one")
        require_number("num_samples", self.num_samples, 8, whole=True, at_least=1, at_most=MOST_SAMPLES)

    @property
    def is_written(self) -> bool:
        """Whether the answer is text."""
        return self.capability != "log_likelihood"

    @property
    def cluster(self) -> str:
        """The group, or the key of an item without a group."""
        return self.group or self.key


def has_text(text: str) -> bool:
    """Whether the text has anything but white space, control characters and U+FFFD.

    U+FFFD replaces bytes that are not valid UTF-8, so it comes from a broken model or decoder.
    """
    return any(character != "\ufffd" and unicodedata.category(character)[0] not in "CZ" for character in text)


@dataclass(frozen=True)
class Response:
    """The answer of a target to one item: one text per sample, without prompt and beginning, or likelihoods.

    The latter are natural logarithms of the continuations' probabilities after the prompt, in the order of
    the item. ``message`` says why the status is not ``ok``.
    """

    texts: tuple[str, ...] = ()
    log_likelihoods: tuple[float, ...] = ()
    status: Status = "ok"
    message: str = ""

    @property
    def is_blank(self) -> bool:
        """Whether the target generated texts that all lack readable characters."""
        return bool(self.texts) and not any(map(has_text, self.texts))


@dataclass(frozen=True)
class Score:
    """The judgement of an evaluator on one response.

    Figures and comparisons use ``value``, which is 0 or 1 if the evaluator is binary; ``details`` are the
    plain JSON values behind it, for figures and the report.
    """

    value: float
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ScoredItem:
    """An item whose response was ``ok`` and could be judged."""

    item: Item
    response: Response
    score: Score


@dataclass(frozen=True)
class Figure:
    """One number of a measure, with its confidence interval.

    Attributes:
        name: Last part of ``safety/<measure>/<name>``, e.g. ``"extracted"``.
        unit: Unit of the number, e.g. ``"share of passages"``.
        description: One sentence that says what was counted.
        control: The number on the controls; ``None`` for a figure without controls.
        ideal: The value of a model without the weakness.
    """

    name: str
    interval: Interval
    unit: str
    description: str
    control: Interval | None = None
    ideal: float = 0.0


@dataclass(frozen=True)
class MeasureSummary:
    """The findings of a measure on one target.

    Attributes:
        status: ``measured``; ``not applicable`` if the target or the run lacks what the measure needs,
            which is never a pass; ``no data`` if no probe could be scored or every answer is blank.
        reason: Why the status is not ``measured``.
        figures: The figures, headline first; empty unless ``measured``.
        coverage: Number of items by status; only ``ok`` items count in the figures.
        notes: Sentences to print beside every figure, e.g. the error rates of a classifier.
    """

    measure: str
    status: Literal["measured", "not applicable", "no data"]
    reason: str = ""
    figures: tuple[Figure, ...] = ()
    coverage: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
