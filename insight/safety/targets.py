"""The models under test: the protocol, a Python function, a network of Insight."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, TypeVar

from insight.generation.settings import GenerationSettings
from insight.runtime.errors import ConfigError, nearest
from insight.safety.records import Capability

if TYPE_CHECKING:
    from insight.data.tokenizers import BaseTokenizer
    from insight.models import Decoder


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


def path_identity(path: Path) -> str:
    """SHA-256 of a checkpoint file, or of the files of an artefact folder with their names."""
    digest = hashlib.sha256()
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    for file in files:
        if path.is_dir():
            digest.update(f"{file.relative_to(path).as_posix()}\0".encode())
        with file.open("rb") as opened:
            while block := opened.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()[:32]


class NetworkTarget:
    """A network and its tokenizer.

    One call runs at a time: a network uses all cores, and its mode is switched while it answers.

    Args:
        network: The model; its mode and the global random state are left as they were.
        tokenizer: Its tokenizer.
        name: For people.
        identity: Exactly which weights, e.g. a hash of their file.
    """

    capabilities: frozenset[Capability] = frozenset({"generate", "log_likelihood"})

    def __init__(self, network: Decoder, tokenizer: BaseTokenizer, name: str, identity: str) -> None:
        import torch

        self.name = name
        self.identity = identity
        self._network = network
        self._tokenizer = tokenizer
        self._num_threads = torch.get_num_threads()
        self._lock = threading.Lock()

    def generate(
        self, prompts: Sequence[str], settings: GenerationSettings, seeds: Sequence[int]
    ) -> list[str]:
        """The prompts side by side."""
        from insight.generation import generate_batch

        with self._lock:
            self._use_the_same_threads()
            generations = generate_batch(self._network, self._tokenizer, prompts, settings, seeds)
        return [generation.text for generation in generations]

    def log_likelihood(
        self, prompts: Sequence[str], continuations: Sequence[Sequence[str]]
    ) -> list[list[float] | Unanswered]:
        """What the continuations share is computed once; what does not fit into the context fails alone."""
        from insight.generation import log_likelihoods

        with self._lock:
            self._use_the_same_threads()
            try:
                return [*log_likelihoods(self._network, self._tokenizer, prompts, continuations)]
            except ConfigError:
                return [self._alone(*one) for one in zip(prompts, continuations, strict=True)]

    def _alone(self, prompt: str, continuations: Sequence[str]) -> list[float] | Unanswered:
        from insight.generation import log_likelihoods

        try:
            return log_likelihoods(self._network, self._tokenizer, [prompt], [continuations])[0]
        except ConfigError as error:
            return Unanswered("error", error.problem)

    def _use_the_same_threads(self) -> None:
        import torch

        # OpenMP keeps the number of threads per calling thread, and sums are split by it.
        if torch.get_num_threads() != self._num_threads:
            torch.set_num_threads(self._num_threads)
