"""The options that a configuration may have, read from the source of the classes without importing it.

Importing torch and Lightning takes seconds. Reading the classes, their parameters, types and explanations
from the source takes a fraction of a second.
"""

from __future__ import annotations

import ast
import functools
import importlib.machinery
import itertools
import re
import sys
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

_CLASS = re.compile(r"^class (?P<name>\w+)(?:\[[^\]]*\])?(?:\((?P<bases>[^)]*)\))?:", re.MULTILINE)
_ARGUMENT = re.compile(r"^(?P<indent> +)(?P<name>\w+): (?P<text>.*)$")
_WITHOUT_PARAMETERS = frozenset({"ABC", "Protocol", "Generic", "object", "Callback", "Component"})
# The folders of other packages whose classes may be named by their short names.
_FOREIGN = {
    "Callback": ("lightning", "pytorch/callbacks"),
    "Logger": ("lightning", "pytorch/loggers"),
    "OptimizerFactory": ("torch", "optim"),
    "Strategy": ("lightning", "pytorch/strategies"),
}


@dataclass(frozen=True)
class Parameter:
    """One parameter of a class: its type, its default in source form, and its text in the docstring."""

    annotation: ast.expr | None
    default: str | None
    explanation: str = ""


@dataclass(frozen=True)
class _Found:
    bases: tuple[str, ...]
    source: str
    is_dataclass: bool
    is_abstract: bool


class SourceSchema:
    """The classes in the Python files of some folders, by name."""

    def __init__(self, *folders: Path) -> None:
        self._classes: dict[str, _Found] = {}
        self._parameters: dict[str, dict[str, Parameter] | None] = {}
        for folder in folders:
            for path in sorted(folder.rglob("*.py")) if folder.is_dir() else [folder]:
                text = path.read_text(encoding="utf-8")
                for match in _CLASS.finditer(text):
                    self._classes.setdefault(match["name"], _found(text, match))
        self._children: dict[str, list[str]] = {}
        for name, found in self._classes.items():
            for base in found.bases:
                self._children.setdefault(base, []).append(name)

    def __contains__(self, name: str) -> bool:
        return name in self._classes

    def choices(self, kind: str) -> list[str]:
        """The classes that may be named where a ``kind`` is expected."""
        below = (name for name in {kind, *self._below(kind)} if name in self._classes)
        own = sorted(name for name in below if name[0] != "_" and not self._classes[name].is_abstract)
        if len(own) > 1 and kind in own and kind in self._children:
            own.remove(kind)  # the base class of the others comes last
            own.append(kind)
        return [*own, *(name for name in _foreign_classes(kind) if name not in own)]

    def is_kind(self, name: str) -> bool:
        """Whether ``name`` is a class whose subclasses may be named."""
        return name in self._classes or name in _FOREIGN

    def parameters(self, name: str) -> dict[str, Parameter] | None:
        """The parameters of a class; ``None`` if the source does not show all of them."""
        if name not in self._parameters:
            self._parameters[name] = self._read(name)
        return self._parameters[name]

    def _read(self, name: str) -> dict[str, Parameter] | None:
        found = self._classes.get(name)
        if found is None:
            return {} if name in _WITHOUT_PARAMETERS else None
        tree = ast.parse(textwrap.dedent(found.source)).body[0]
        assert isinstance(tree, ast.ClassDef)
        helps = explanations(ast.get_docstring(tree) or "")
        for node in tree.body:
            if isinstance(node, ast.FunctionDef) and node.name == "__init__":
                return _of_function(node, helps)
        inherited: dict[str, Parameter] = {}
        for base in reversed(found.bases):
            parameters = self.parameters(base)
            if parameters is None:
                return None
            inherited |= parameters
        own = dict(_of_fields(tree, helps)) if found.is_dataclass else {}
        return inherited | own

    def _below(self, kind: str) -> Iterator[str]:
        foreign = [name for name in _foreign_classes(kind) for name in self._children.get(name, ())]
        for child in (*self._children.get(kind, ()), *foreign):
            yield child
            yield from self._below(child)


@functools.cache
def insight_schema() -> SourceSchema:
    """The classes of Insight, and Lightning's Trainer."""
    lightning = package_folder("lightning")
    trainer = [lightning / "pytorch" / "trainer" / "trainer.py"] if lightning else []
    return SourceSchema(Path(__file__).parents[1], *trainer)


@functools.cache
def package_folder(name: str) -> Path | None:
    """The folder of an installed package, found without importing it."""
    spec = importlib.machinery.PathFinder.find_spec(name, sys.path)
    return Path(spec.origin).parent if spec and spec.origin else None


@functools.cache
def _foreign_classes(kind: str) -> tuple[str, ...]:
    if kind not in _FOREIGN:
        return ()
    package, folder = _FOREIGN[kind]
    root = package_folder(package)
    paths = sorted((root / folder).glob("*.py")) if root else []
    found = (match["name"] for path in paths for match in _CLASS.finditer(path.read_text(encoding="utf-8")))
    return tuple(sorted({name for name in found if not name.startswith("_")}))


def _found(text: str, match: re.Match[str]) -> _Found:
    end = re.compile(r"^\S", re.MULTILINE).search(text, match.end() + 1)
    before = reversed(text[: match.start()].splitlines()[-6:])
    decorators = itertools.takewhile(lambda line: line.startswith("@"), before)
    source = text[match.start() : end.start() if end else len(text)]
    names = (base.strip() for base in (match["bases"] or "").split(",") if "=" not in base)
    bases = tuple(base.split("[")[0].rpartition(".")[2] for base in names if base)
    is_dataclass = any("dataclass" in line for line in decorators)
    return _Found(bases, source, is_dataclass, "abstractmethod" in source)


def _of_function(function: ast.FunctionDef, helps: dict[str, str]) -> dict[str, Parameter] | None:
    arguments = function.args
    if arguments.vararg or arguments.kwarg:
        return None
    positional = [*arguments.posonlyargs, *arguments.args]
    defaults = [None] * (len(positional) - len(arguments.defaults)) + list(arguments.defaults)
    pairs = [*zip(positional, defaults, strict=True)]
    pairs += zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    found = {}
    for argument, value in pairs:
        name, default = argument.arg, ast.unparse(value) if value else None
        if name != "self":
            found[name] = Parameter(argument.annotation, default, helps.get(name, ""))
    return found


def _of_fields(tree: ast.ClassDef, helps: dict[str, str]) -> Iterator[tuple[str, Parameter]]:
    for node in tree.body:
        if not (isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)):
            continue
        default = ast.unparse(node.value) if node.value is not None else None
        if "ClassVar" in ast.unparse(node.annotation) or "init=False" in (default or ""):
            continue
        name = node.target.id
        yield name, Parameter(node.annotation, default, helps.get(name, ""))


def listed(names: Iterable[str]) -> str:
    """The first names, with a note if there are more."""
    shown = list(names)
    return ", ".join(shown[:8]) + (", …" if len(shown) > 8 else "")


def explanations(docstring: str) -> dict[str, str]:
    """The texts below ``Args`` in a docstring of Google style, by name."""
    _, _, rest = docstring.partition("Args:\n")
    found: dict[str, str] = {}
    name, indent = "", 0
    for line in rest.splitlines():
        match = _ARGUMENT.match(line)
        if match and (not name or len(match["indent"]) <= indent):
            name, indent = match["name"], len(match["indent"])
            found[name] = match["text"]
        elif line.strip() and name and line.startswith(" " * (indent + 1)):
            found[name] += f" {line.strip()}"
        elif line.strip() and not line.startswith(" "):
            break
    return found
