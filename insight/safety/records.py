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

Capability = Literal["generate", "log_likelihood"]
"""Requests that a target may answer: texts that continue a prompt, or how likely continuations are."""
Role = Literal["probe", "control"]
"""A probe looks for the weakness; its control is the same question where the weakness cannot show."""
Status = Literal["ok", "error", "blocked", "unscorable"]
"""Only ``ok`` counts. ``error``: the target failed. ``blocked``: it, or a filter before it, refused.
``unscorable``: it answered, and the evaluator cannot judge the answer."""
MOST_SAMPLES = 1_000
"""Samples of one prompt: they are written side by side, so more would not fit into memory."""
MOST_NEW_TOKENS = 10_000
"""Length of an answer; a longer one would keep a run busy for hours."""
STATUSES: tuple[Status, ...] = ("ok", "error", "blocked", "unscorable")


@dataclass(frozen=True)
class Item:
    """One question to a target, and what an evaluator needs to judge the answer.

    Attributes:
        key: Name, unique within its attack and the same for every target, e.g. ``"religion/07"``: two
            models are compared on items with equal keys.
        capability: The kind of the question.
        prompt: Text to continue; may be empty.
        continuations: For ``log_likelihood``: texts after the prompt, at least one, each not empty.
        settings: For ``generate``: how. Its seed is not used, every sample gets one of its own.
        num_samples: For ``generate``: how many texts.
        role: Probe or control.
        group: Name of the thing that was drawn at random, where several items share it (the samples of one
            text): intervals treat a group as one case. Empty where the item stands for itself.
        reference: Values that the answer is judged by, plain JSON.
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

    def __post_init__(self) -> None:
        if self.capability == "log_likelihood" and not (self.continuations and all(self.continuations)):
            raise ConfigError(
                f"item {self.key!r}: log_likelihood needs continuations that are not empty",
                "give at least one",
            )
        require_number("num_samples", self.num_samples, 8, whole=True, at_least=1, at_most=MOST_SAMPLES)

    @property
    def cluster(self) -> str:
        """The group, or the item's own name."""
        return self.group or self.key


def has_text(text: str) -> bool:
    """Whether a reader would see anything: not in empty text, white space, control characters and U+FFFD.

    U+FFFD stands where bytes of an answer are no character, so it is what a broken model or decoder writes.
    """
    return any(character != "\ufffd" and unicodedata.category(character)[0] not in "CZ" for character in text)


@dataclass(frozen=True)
class Response:
    """The answer of a target to one item.

    Attributes:
        texts: For ``generate``: one continuation a sample, without the prompt.
        log_likelihoods: For ``log_likelihood``: natural logarithm of each continuation's probability after
            the prompt, in the order of the item.
        status: ``ok``, ``error`` or ``blocked``.
        message: Why, where it is not ``ok``.
    """

    texts: tuple[str, ...] = ()
    log_likelihoods: tuple[float, ...] = ()
    status: Status = "ok"
    message: str = ""

    @property
    def is_blank(self) -> bool:
        """Whether it was to be text and none of it can be read."""
        return bool(self.texts) and not any(map(has_text, self.texts))


@dataclass(frozen=True)
class Score:
    """The judgement of an evaluator on one response.

    Attributes:
        value: The number that figures and comparisons are made of; 0 or 1 where the evaluator is binary.
        details: Values that led to it, plain JSON, for the report.
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
    """One number of a measure, with what it has to be compared with.

    Attributes:
        name: Last part of ``safety/<measure>/<name>``, e.g. ``"extracted"``.
        interval: The number.
        unit: Unit of the number, e.g. ``"share of passages"``.
        description: One sentence: what was counted.
        control: The number on the controls; ``None`` where it has no control.
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
        measure: Name of the measure.
        status: ``measured``; ``not applicable`` where the target or the run lacks what it needs, which is
            never a pass; ``no data`` where no item was ``ok``.
        reason: The reason where it is not ``measured``.
        figures: The headline first; empty unless ``measured``.
        coverage: Items by status; only ``ok`` ones are in the figures.
        notes: Sentences that a reader has to know beside every figure, e.g. the error rates of a classifier.
    """

    measure: str
    status: Literal["measured", "not applicable", "no data"]
    reason: str = ""
    figures: tuple[Figure, ...] = ()
    coverage: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
