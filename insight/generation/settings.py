"""The options of text generation, checked when they are built; this module does not import torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from insight.generation.scores import LengthRuleName, find_length_rule
from insight.runtime.component import Component
from insight.runtime.errors import ConfigError
from insight.runtime.numbers import require_number


@dataclass(frozen=True)
class Sampling(Component):
    """How to draw tokens at random.

    Args:
        temperature: Divisor of the scores before sampling.
        top_k: Number of the most likely tokens to sample from.
        top_p: Sample only from the likeliest tokens that together reach this probability.
        min_p: Sample only from tokens at least this share as likely as the most likely one.
        seed: Seed of the samples; a sentence draws by its own text, not by its place.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        require_number("temperature", self.temperature, "1, or leave sampling out", above=0, below=100)
        _check_filters(self)

    @property
    def signature(self) -> str:
        """The options as they stand in a decoding signature."""
        filters = {name: getattr(self, name) for name in ("top_k", "top_p", "min_p")}
        parts = [f"{name}={value:g}" for name, value in filters.items() if value is not None]
        return ",".join([f"temperature={self.temperature:g}", *parts, f"seed={self.seed}"])


@dataclass(frozen=True)
class GenerationSettings(Component):
    """How to continue a text: by drawing token after token, or by a search for the likeliest text.

    Args:
        max_new_tokens: The highest number of tokens to write.
        temperature: Divisor of the scores before sampling; 0 always takes the most likely token.
        top_k: Number of the most likely tokens to sample from.
        top_p: Sample only from the likeliest tokens that together reach this probability
            (nucleus sampling, Holtzman et al. 2020, arXiv 1904.09751).
        min_p: Sample only from tokens at least this share as likely as the most likely one
            (Nguyen et al. 2024, arXiv 2407.01082).
        seed: Seed of the samples; the same seed gives the same text.
        stop: Strings that end the text, which stops before the first of them.
        overflow: Behaviour when prompt and text outgrow the context: ``slide`` drops the oldest tokens,
            ``error`` refuses. A search ends where the context is full.
        num_beams: Search for the likeliest text with so many running hypotheses in place of drawing one; 1 is
            greedy search.
        n_best: Texts, best first, that a search finds or that are drawn.
        length_rule: How the score of a text follows from the sum of its log-probabilities and its length, and
            when a search stops: ``mean`` (transformers' score, an exact stop), ``gnmt``, ``marian`` or
            ``ctranslate2``.
        length_penalty: Exponent of the length in that rule; more favours longer texts. Without it the rule's
            own.
        no_repeat_ngram: Length of token sequences that may not occur twice, the prompt's included; 0 allows
            all.
        must_contain: Text that a search must write, at the beginning of a word if it begins with a letter;
            may be given again.
        must_not_contain: Text that is never written; may be given again.
    """

    max_new_tokens: int = 200
    temperature: float = 0.8
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    seed: int = 0
    stop: tuple[str, ...] = ()
    overflow: Literal["slide", "error"] = "slide"
    num_beams: int | None = None
    n_best: int = 1
    length_rule: LengthRuleName = "mean"
    length_penalty: float | None = None
    no_repeat_ngram: int = 0
    must_contain: Sequence[str] = ()
    must_not_contain: Sequence[str] = ()

    def __post_init__(self) -> None:
        require_number("max_new_tokens", self.max_new_tokens, 200, whole=True, at_least=1)
        require_number("temperature", self.temperature, 0.8, at_least=0, below=100)
        _check_filters(self)
        if self.overflow not in ("slide", "error"):
            raise ConfigError("must be slide or error", "use slide", option="overflow", value=self.overflow)
        stop = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)
        if not all(isinstance(text, str) and text for text in stop):
            remedy = r"use for example ['\n\n']"
            raise ConfigError("must be strings that are not empty", remedy, option="stop", value=stop)
        object.__setattr__(self, "stop", stop)
        check_search(self, self.num_beams)
        self._check_drawing()

    @property
    def searches(self) -> bool:
        """Whether whole texts are compared, so that nothing can be shown before the end."""
        changed = (name for name in _OF_SEARCHES if getattr(self, name) != getattr(GenerationSettings, name))
        return next(changed, None) is not None

    def _check_drawing(self) -> None:
        """Refuse options of drawing in a search, and those of a search in drawing."""
        if self.searches and self.stop:
            problem, remedy = "ends a text that is drawn token by token", "leave it out, or the search"
            raise ConfigError(problem, remedy, option="stop", value=self.stop)
        if self.num_beams is None:
            names: tuple[str, ...] = ("length_rule", "length_penalty", "must_contain")
            names += ("n_best",) if self.temperature == 0 else ()
            problem, remedy = "belongs to a search", "add num_beams=5, or leave it out"
        else:
            names = ("top_k", "top_p", "min_p", "seed", *(("temperature",) if self.temperature else ()))
            problem, remedy = "belongs to drawing at random", "leave it or num_beams out"
        for name in names:
            value = getattr(self, name)
            if value != getattr(GenerationSettings, name):
                raise ConfigError(problem, remedy, option=name, value=value)


_OF_SEARCHES = ("num_beams", "n_best", "no_repeat_ngram", "must_contain", "must_not_contain")


def check_search(options: Any, widest: int | None) -> None:
    """Refuse options of a search, those of generating or translating, that cannot work.

    Texts that must or must not be contained become tuples. ``widest`` bounds ``n_best``.
    """
    require_number("num_beams", options.num_beams, 5, whole=True, optional=True, at_least=1)
    require_number("n_best", options.n_best, 1, whole=True, at_least=1)
    if widest is not None and options.n_best > widest:
        problem, remedy = f"exceeds num_beams={widest}", f"use num_beams={options.n_best}"
        raise ConfigError(problem, remedy, option="n_best", value=options.n_best)
    require_number("no_repeat_ngram", options.no_repeat_ngram, "3, or 0 for none", whole=True, at_least=0)
    find_length_rule(options.length_rule, options.length_penalty)
    for name in ("must_contain", "must_not_contain"):
        texts = getattr(options, name)
        texts = (texts,) if isinstance(texts, str) else tuple(texts)
        if not all(isinstance(text, str) and text for text in texts):
            raise ConfigError("holds an empty text", "leave it out", option=name, value=texts)
        object.__setattr__(options, name, texts)


def _check_filters(settings: Sampling | GenerationSettings) -> None:
    """Refuse filters and seeds that cannot work."""
    require_number("top_k", settings.top_k, 50, whole=True, optional=True, at_least=1)
    require_number("top_p", settings.top_p, 0.9, optional=True, above=0, at_most=1)
    require_number("min_p", settings.min_p, 0.05, optional=True, at_least=0, at_most=1)
    require_number("seed", settings.seed, 0, whole=True, at_least=0, below=2**63)
