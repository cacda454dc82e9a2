"""How models are compared; this module does not import torch, so wrong settings are refused at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from insight.runtime.errors import ConfigError
from insight.runtime.numbers import require_number

_PROMPT_LENGTH, _NUM_NEW_TOKENS = 128, 32


@dataclass(frozen=True)
class ComparisonSettings:
    """How models are compared.

    Args:
        batch_sizes: Batch sizes at which speed is measured.
        prompt_length: Number of tokens of a prompt; 128 by default, or fewer if a context is shorter.
        num_new_tokens: Number of tokens generated after it; 32 by default, or fewer in a short context.
        seconds: Seconds for measuring the speed of each model, without warm-up.
        num_processes: Number of fresh processes in which each model is loaded.
        device: The device of the models: cpu, cuda, cuda:1, mps.
        seed: Seed of the bootstrap.
    """

    batch_sizes: tuple[int, ...] = (1, 8)
    prompt_length: int | None = None
    num_new_tokens: int | None = None
    seconds: float = 10.0
    num_processes: int = 3
    device: str = "cpu"
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "batch_sizes", tuple(self.batch_sizes))
        check_batch_sizes(self.batch_sizes)
        require_number("num_processes", self.num_processes, 3, whole=True, at_least=1)
        for name in ("prompt_length", "num_new_tokens"):
            require_number(name, getattr(self, name), 32, whole=True, optional=True, at_least=1)
        require_number("seconds", self.seconds, 10, above=0)
        require_number("seed", self.seed, 0, whole=True, at_least=0)

    def for_context(self, context: int) -> ComparisonSettings:
        """These settings with default lengths that fit into ``context`` tokens.

        Raises:
            ConfigError: The given lengths do not fit.
        """
        left = context - self.prompt_length if self.prompt_length else context // 2
        new = self.num_new_tokens or min(_NUM_NEW_TOKENS, max(1, left))
        prompt = self.prompt_length or min(_PROMPT_LENGTH, context - new)
        check_lengths(prompt, new, context, "shortest context")
        return dataclasses.replace(self, prompt_length=prompt, num_new_tokens=new)


def check_batch_sizes(sizes: Sequence[int]) -> None:
    """Refuse batch sizes below 1, or none.

    Raises:
        ConfigError: A size is out of range.
    """
    if not sizes:
        raise ConfigError("is empty: speed needs at least one", "use 1 8", option="batch_sizes", value="")
    for size in sizes:
        require_number("batch_sizes", size, 8, whole=True, at_least=1)


def check_lengths(prompt: int, new: int, context: int, name: str) -> None:
    """Refuse a prompt that does not fit into a context with the new tokens.

    Raises:
        ConfigError: They do not fit.
    """
    if prompt < 1 or prompt + new > context:
        problem = f"and num_new_tokens={new} exceed the {name} ({context} tokens)"
        remedy = f"use together at most {context}"
        raise ConfigError(problem, remedy, option="prompt_length", value=prompt)
