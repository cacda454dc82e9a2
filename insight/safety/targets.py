"""Models under test: the protocol, and targets of Python functions."""

from __future__ import annotations

import ast
import dataclasses
import functools
import hashlib
import importlib
import os
import sys
import types
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

from insight.generation.settings import GenerationSettings
from insight.runtime.errors import ConfigError, did_you_mean
from insight.safety.records import Capability


class Blocked(Exception):  # noqa: N818 (an answer, not a failure)
    """Raised by a callable if its model, or a filter in front of it, refuses to answer."""


@dataclass(frozen=True)
class Unanswered:
    """Takes the place of an answer; ``message`` is the reason."""

    status: Literal["error", "blocked"]
    message: str


class Target(Protocol):
    """A model under test. The method of a capability that it lacks is never called.

    Equal calls must give equal answers: all randomness comes from the seeds. Several threads may call it.
    """

    @property
    def name(self) -> str:
        """Display name."""

    @property
    def identity(self) -> str:
        """Exact identity of the model: two targets with the same identity give the same answers."""

    @property
    def capabilities(self) -> frozenset[Capability]:
        """The requests that it answers."""

    def generate(
        self, prompts: Sequence[str], settings: GenerationSettings, seeds: Sequence[int]
    ) -> Sequence[str | Unanswered]:
        """A continuation of each prompt, without the prompt, drawn with the prompt's seed."""

    def log_likelihood(
        self, prompts: Sequence[str], continuations: Sequence[Sequence[str]]
    ) -> Sequence[Sequence[float] | Unanswered]:
        """Natural logarithm of the probability of each continuation after its prompt."""


class TranslationTarget(Target, Protocol):
    """A model that translates: its prompts are source sentences, and their continuations translations."""

    @property
    def languages(self) -> tuple[str, str]:
        """Names of the source and of the target language."""

    def complete(
        self,
        prompts: Sequence[str],
        beginnings: Sequence[str],
        settings: GenerationSettings,
        seeds: Sequence[int],
    ) -> Sequence[str | Unanswered]:
        """The rest of a translation of each prompt that has a given beginning."""


def languages_of(target: Target) -> tuple[str, str] | None:
    """The languages of a target that translates; ``None`` for one that continues text."""
    languages: tuple[str, str] | None = getattr(target, "languages", None)
    return languages


Answer = TypeVar("Answer")
_LIBRARIES = frozenset({*sys.stdlib_module_names, "insight"})


class CallableTarget:
    """Python functions in place of a model, e.g. another library, a remote service or a filter.

    An exception makes only its item an error, or blocked if it is :class:`Blocked`.

    Args:
        name: Display name.
        generate: Function ``(prompt, settings) -> text``; ``settings.seed`` is the seed of the sample.
        log_likelihood: Function ``(prompt, continuation) -> nats``.
        identity: Exact identity of the model, so that an interrupted run is never finished with another
            model. If empty, it is the name with a hash of the functions' code (:func:`code_identity`); set
            it if the answers also depend on something else, such as a remote model or a file of weights.
        languages: Names of the source and of the target language, such as ``("en", "es")``, of a model that
            translates. Its prompts are then source sentences, and continuations are translations.
    """

    def __init__(
        self,
        name: str,
        generate: Callable[[str, GenerationSettings], str] | None = None,
        log_likelihood: Callable[[str, str], float] | None = None,
        identity: str = "",
        languages: tuple[str, str] | None = None,
    ) -> None:
        if generate is None and log_likelihood is None:
            raise ConfigError(f"target {name!r} can do nothing", "give generate or log_likelihood")
        self.name, self.languages = name, languages
        self.identity = identity or f"{name} {code_identity(generate, log_likelihood)}"
        self._generate = generate
        self._log_likelihood = log_likelihood

    @property
    def capabilities(self) -> frozenset[Capability]:
        """The requests that have a function."""
        found: set[Capability] = {"generate"} if self._generate else set()
        return frozenset(found | ({"log_likelihood"} if self._log_likelihood else set()))

    def generate(
        self, prompts: Sequence[str], settings: GenerationSettings, seeds: Sequence[int]
    ) -> list[str | Unanswered]:
        """One call per prompt."""
        function = self._generate
        assert function is not None

        def call(prompt: str, seed: int) -> str:
            text = function(prompt, dataclasses.replace(settings, seed=seed))
            if not isinstance(text, str):
                raise TypeError(f"returned {type(text).__name__}, not str")
            return text

        return [_answer(call, prompt, seed) for prompt, seed in zip(prompts, seeds, strict=True)]

    def log_likelihood(
        self, prompts: Sequence[str], continuations: Sequence[Sequence[str]]
    ) -> list[list[float] | Unanswered]:
        """One call per continuation; if one of them fails, the whole item fails."""
        function = self._log_likelihood
        assert function is not None

        def call(prompt: str, options: Sequence[str]) -> list[float]:
            return [float(function(prompt, option)) for option in options]

        return [_answer(call, *one) for one in zip(prompts, continuations, strict=True)]


def python_target(argument: str) -> CallableTarget:
    """The target ``python:MODULE:FUNCTION``: a function ``(prompt, settings) -> text``.

    Raises:
        ConfigError: The module cannot be imported or has no such function.
    """
    module_name, _, name = argument.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # the script `insight` does not look there by itself
    try:
        module = importlib.import_module(module_name) if module_name and name else None
    except Exception as error:  # the import of a user's module may raise anything
        problem = f"--target=python:{argument}: {module_name} cannot be imported ({in_one_line(error)})"
        raise ConfigError(problem, "name a module that Python finds") from error
    function = getattr(module, name, None)
    if not callable(function):
        remedy = did_you_mean(name, dir(module) if module else (), "write python:MODULE:FUNCTION")
        raise ConfigError(f"--target=python:{argument}: no such function", remedy)
    return CallableTarget(f"python:{argument}", generate=function)


def _answer(call: Callable[..., Answer], *arguments: object) -> Answer | Unanswered:
    try:
        return call(*arguments)
    except Blocked as refusal:
        return Unanswered("blocked", in_one_line(refusal))
    except Exception as error:  # a target's failure is a result
        return Unanswered("error", in_one_line(error))


def in_one_line(error: BaseException) -> str:
    """An exception in one line, without a traceback."""
    text = (str(error).splitlines() or [""])[0][:200]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def code_identity(*functions: Callable[..., Any] | None) -> str:
    """A hash of the code that functions run, so that edited code counts as another model.

    It covers the file of each function, the files that this file imports from the same place, and the
    plain values that the function is bound to (defaults, closures, arguments of a ``partial``). Other
    objects count by their class and attributes.
    """
    digest = hashlib.sha256()
    for function in functions:
        _add_value(digest, function, set())
    return digest.hexdigest()[:16]


def _add_value(digest: Any, value: Any, seen: set[int]) -> None:
    """Feed a value to the digest: the code of functions, the elements of containers."""
    if value is None or isinstance(value, (str, bytes, int, float, complex)):
        digest.update(f"{type(value).__name__} {value!r};".encode("utf-8", "backslashreplace"))
        return
    if id(value) in seen:
        return
    seen.add(id(value))
    parts: Iterable[Any] = ()
    if isinstance(value, functools.partial):
        parts = (value.func, value.args, value.keywords)
    elif isinstance(value, types.MethodType):
        parts = (value.__func__, value.__self__)
    elif isinstance(value, types.FunctionType):
        _add_code(digest, value.__code__)
        _add_files(digest, value.__module__)
        cells = [content for cell in value.__closure__ or () for content in _contents(cell)]
        parts = (value.__defaults__, value.__kwdefaults__, *cells)
    elif isinstance(value, (list, tuple)):
        digest.update(f"{type(value).__name__} of {len(value)};".encode())
        parts = value
    elif isinstance(value, dict):
        digest.update(f"dict of {len(value)};".encode())
        # A list, since the identity of a pair that is gone could be that of the next one.
        parts = [(str(key), value[key]) for key in sorted(value, key=str)]
    else:
        kind = value if isinstance(value, type) else type(value)
        digest.update(f"{kind.__module__}.{kind.__qualname__};".encode())
        _add_files(digest, kind.__module__)
        parts = () if isinstance(value, type) else (getattr(value, "__dict__", None),)
    for part in parts:
        _add_value(digest, part, seen)


def _add_code(digest: Any, code: types.CodeType) -> None:
    digest.update(code.co_code)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            _add_code(digest, constant)
        else:
            digest.update(repr(constant).encode("utf-8", "backslashreplace"))
    digest.update(repr(code.co_names).encode())


def _add_files(digest: Any, module_name: str) -> None:
    """Feed the sources of a module and of its imports from the same place, but no installed libraries."""
    top = sys.modules.get(module_name.partition(".")[0])
    path = getattr(sys.modules.get(module_name), "__file__", None)
    if top is None or path is None or "site-packages" in path or top.__name__ in _LIBRARIES:
        return
    top_file = Path(getattr(top, "__file__", None) or path)
    root = top_file.parent.parent if top_file.name == "__init__.py" else top_file.parent
    found: dict[Path, bytes] = {}
    waiting = [Path(path)]
    while waiting:
        file = waiting.pop()
        if file in found or not file.is_file():
            continue
        found[file] = file.read_bytes()
        if file.suffix == ".py":
            waiting += _imported_files(found[file], file, root)
    for file in sorted(found):
        digest.update(file.name.encode() + b"\0" + found[file])


def _imported_files(source: bytes, file: Path, root: Path) -> Iterator[Path]:
    """Paths under ``root`` that the modules imported by a source file may have."""
    try:
        tree = ast.parse(source)
    except SyntaxError:  # the file may be imported lazily, and never be needed
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            places = [root.joinpath(*alias.name.split(".")) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = file.parents[node.level - 1] if node.level else root
            module = base.joinpath(*(node.module or "").split("."))
            places = [module, *(module / alias.name for alias in node.names)]
        else:
            continue
        for place in places:
            yield place / "__init__.py"
            yield place.with_name(f"{place.name}.py")


def _contents(cell: types.CellType) -> tuple[Any, ...]:
    try:
        return (cell.cell_contents,)
    except ValueError:  # the cell is empty
        return ()
