"""The options of text generation, checked when they are built; this module does not import torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

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
    """How to continue a text.

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
            ``error`` refuses.
    """

    max_new_tokens: int = 200
    temperature: float = 0.8
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    seed: int = 0
    stop: tuple[str, ...] = ()
    overflow: Literal["slide", "error"] = "slide"

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


def _check_filters(settings: Sampling | GenerationSettings) -> None:
    """Refuse filters and seeds that cannot work."""
    require_number("top_k", settings.top_k, 50, whole=True, optional=True, at_least=1)
    require_number("top_p", settings.top_p, 0.9, optional=True, above=0, at_most=1)
    require_number("min_p", settings.min_p, 0.05, optional=True, at_least=0, at_most=1)
    require_number("seed", settings.seed, 0, whole=True, at_least=0, below=2**63)
