"""How to continue a text: the options of sampling, validated where they are built."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from insight.runtime.component import Component
from insight.runtime.errors import ConfigError


@dataclass(frozen=True)
class GenerationSettings(Component):
    """How to continue a text.

    Args:
        max_new_tokens: Most tokens to write.
        temperature: Divides the scores before sampling; 0 always takes the likeliest token.
        top_k: Sample only from this many likeliest tokens.
        top_p: Sample only from the likeliest tokens that together reach this probability
            (nucleus sampling, Holtzman et al. 2020, arXiv 1904.09751).
        min_p: Sample only from tokens at least this share as likely as the likeliest
            (Nguyen et al. 2024, arXiv 2407.01082).
        seed: Chooses among the samples; the same seed gives the same text.
        stop: The text ends before the first of these strings.
        overflow: When prompt and text outgrow the context: ``slide`` forgets the oldest tokens, ``error``
            refuses.
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
        _require(self.max_new_tokens >= 1, "max_new_tokens", self.max_new_tokens, "at least 1", "200")
        _require(0 <= self.temperature < 100, "temperature", self.temperature, "from 0 to below 100", "0.8")
        _require(self.top_k is None or self.top_k >= 1, "top_k", self.top_k, "at least 1", "50")
        _require(self.top_p is None or 0 < self.top_p <= 1, "top_p", self.top_p, "above 0, at most 1", "0.9")
        _require(self.min_p is None or 0 <= self.min_p <= 1, "min_p", self.min_p, "from 0 to 1", "0.05")
        _require(0 <= self.seed < 2**63, "seed", self.seed, "from 0 to 2^63 - 1", "0")
        _require(self.overflow in ("slide", "error"), "overflow", self.overflow, "slide or error", "slide")
        object.__setattr__(self, "stop", tuple(self.stop))
        _require(all(self.stop), "stop", self.stop, "strings that are not empty", "'\\n\\n'")


def _require(holds: bool, name: str, value: object, rule: str, example: str) -> None:
    if not holds:
        raise ConfigError(f"{name}={value!r}: must be {rule}", f"use for example {example}")
