"""Any Python function as a target."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Sequence
from typing import TypeVar

from insight.generation.settings import GenerationSettings
from insight.runtime.errors import ConfigError, nearest
from insight.safety.records import Capability
from insight.safety.targets.base import Blocked, Unanswered

Answer = TypeVar("Answer")


class CallableTarget:
    """Functions in place of a model: another library, a remote service, a filter around a model.

    A function that raises fails for that item only. Where it raises :class:`Blocked`, the item counts as
    blocked.

    Args:
        name: For people.
        generate: ``(prompt, settings) -> text``; ``settings.seed`` is that of the sample.
        log_likelihood: ``(prompt, continuation) -> nats``.
        identity: Exactly which model, so that an interrupted run is never finished with another one;
            ``name`` if empty.

    Raises:
        ConfigError: No function is given.
    """

    def __init__(
        self,
        name: str,
        generate: Callable[[str, GenerationSettings], str] | None = None,
        log_likelihood: Callable[[str, str], float] | None = None,
        identity: str = "",
    ) -> None:
        if generate is None and log_likelihood is None:
            raise ConfigError(f"target {name!r} can do nothing", "give generate or log_likelihood")
        self.name = name
        self.identity = identity or name
        self._generate = generate
        self._log_likelihood = log_likelihood

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What there is a function for."""
        found: list[Capability] = []
        found += ["generate"] if self._generate else []
        found += ["log_likelihood"] if self._log_likelihood else []
        return frozenset(found)

    def generate(
        self, prompts: Sequence[str], settings: GenerationSettings, seeds: Sequence[int]
    ) -> list[str | Unanswered]:
        """One call a prompt."""
        function = self._generate
        assert function is not None

        def call(prompt: str, seed: int) -> str:
            text = function(prompt, dataclasses.replace(settings, seed=seed))
            if not isinstance(text, str):
                raise TypeError(f"returned {type(text).__name__}, not str")
            return text

        return [
            _answer(lambda prompt=prompt, seed=seed: call(prompt, seed))  # type: ignore[misc]
            for prompt, seed in zip(prompts, seeds, strict=True)
        ]

    def log_likelihood(
        self, prompts: Sequence[str], continuations: Sequence[Sequence[str]]
    ) -> list[list[float] | Unanswered]:
        """One call a continuation; if one of them fails, its whole item does."""
        function = self._log_likelihood
        assert function is not None
        return [
            _answer(lambda prompt=prompt, options=options: [float(function(prompt, o)) for o in options])  # type: ignore[misc]
            for prompt, options in zip(prompts, continuations, strict=True)
        ]


def python_target(argument: str) -> CallableTarget:
    """The target ``python:MODULE:FUNCTION``: a function ``(prompt, settings) -> text``.

    Raises:
        ConfigError: There is no such function.
    """
    module_name, _, name = argument.partition(":")
    try:
        module = importlib.import_module(module_name) if module_name and name else None
    except Exception as error:  # whatever somebody's module raises while it is imported
        raise ConfigError(
            f"--target=python:{argument}: {module_name} cannot be imported ({_line(error)})",
            "name a module that Python finds",
        ) from error
    function = getattr(module, name, None)
    if not callable(function):
        match = nearest(name, dir(module)) if module else None
        raise ConfigError(
            f"--target=python:{argument}: no such function",
            f"did you mean {match!r}?" if match else "write python:MODULE:FUNCTION",
        )
    return CallableTarget(f"python:{argument}", generate=function)


def _answer(call: Callable[[], Answer]) -> Answer | Unanswered:
    try:
        return call()
    except Blocked as refusal:
        return Unanswered("blocked", _line(refusal))
    except Exception as error:  # a target's failure is a result
        return Unanswered("error", _line(error))


def _line(error: BaseException) -> str:
    """An exception in one line, without addresses that differ from run to run."""
    text = (str(error).splitlines() or [""])[0][:200]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
