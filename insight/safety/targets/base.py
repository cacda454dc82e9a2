"""The protocol of targets: what a model under test can be asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from insight.generation.settings import GenerationSettings
from insight.safety.records import Capability


class Blocked(Exception):  # noqa: N818 (an answer, not a failure)
    """Raised by a callable whose model, or a filter before it, refuses to answer."""


@dataclass(frozen=True)
class Unanswered:
    """In place of an answer.

    Attributes:
        status: ``error`` or ``blocked``.
        message: Why.
    """

    status: Literal["error", "blocked"]
    message: str


class Target(Protocol):
    """A model under test. It may lack a capability; its method is then never called.

    Equal calls get equal answers: all chance comes from the seeds. Calls may come from several threads.

    Attributes:
        name: For people.
        identity: Exactly which model: two targets with one identity give the same answers.
        capabilities: What it can be asked for.
    """

    @property
    def name(self) -> str:
        """For people."""

    @property
    def identity(self) -> str:
        """Exactly which model."""

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What it can be asked for."""

    def generate(
        self, prompts: Sequence[str], settings: GenerationSettings, seeds: Sequence[int]
    ) -> Sequence[str | Unanswered]:
        """A continuation of each prompt, without the prompt, drawn with its own seed."""

    def log_likelihood(
        self, prompts: Sequence[str], continuations: Sequence[Sequence[str]]
    ) -> Sequence[Sequence[float] | Unanswered]:
        """Natural logarithm of the probability of each continuation after its prompt."""
