"""How models are compared: the options of a benchmark, checked where they are made."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

from insight.runtime.errors import ConfigError

_PROMPT_LENGTH, _NUM_NEW_TOKENS = 128, 32


@dataclass(frozen=True)
class ComparisonSettings:
    """How models are compared.

    Args:
        batch_sizes: Sequences at a time when speed is measured.
        prompt_length: Tokens of a prompt; ``None`` takes 128, or less where a context is shorter.
        num_new_tokens: Tokens written after it; ``None`` takes 32, or what is left of the shortest context.
        seconds: Time for measuring the speed of each model, warm-up not counted.
        num_processes: Fresh processes in which each model is loaded.
        device: Where the models run.
        seed: Of the bootstrap.
    """

    batch_sizes: tuple[int, ...] = (1, 8)
    prompt_length: int | None = None
    num_new_tokens: int | None = None
    seconds: float = 10.0
    num_processes: int = 3
    device: str = "cpu"
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.batch_sizes:
            raise ConfigError("batch_sizes is empty: speed needs at least one", "use 1 8")
        numbers = [("batch_sizes", size) for size in self.batch_sizes]
        numbers += [("num_processes", self.num_processes)]
        for name in ("prompt_length", "num_new_tokens"):
            numbers += [(name, value) for value in (getattr(self, name),) if value is not None]
        for name, value in numbers:
            if value < 1:
                raise ConfigError(f"{name}={value}: must be at least 1", "leave it out for the default")
        if not (self.seconds > 0 and math.isfinite(self.seconds)):
            raise ConfigError(f"seconds={self.seconds}: must be above 0", "use for example 10")
        if self.seed < 0:
            raise ConfigError(f"seed={self.seed}: must be 0 or more", "use for example 0")

    def for_context(self, context: int) -> ComparisonSettings:
        """The same with lengths filled in that fit into ``context`` tokens.

        Raises:
            ConfigError: Lengths that were given do not fit.
        """
        left = context - self.prompt_length if self.prompt_length else context // 2
        new = self.num_new_tokens or min(_NUM_NEW_TOKENS, max(1, left))
        prompt = self.prompt_length or min(_PROMPT_LENGTH, context - new)
        if prompt < 1 or prompt + new > context:
            raise ConfigError(
                f"prompt_length={prompt} and num_new_tokens={new} exceed the shortest context "
                f"({context} tokens)",
                f"use together at most {context}",
            )
        return dataclasses.replace(self, prompt_length=prompt, num_new_tokens=new)
