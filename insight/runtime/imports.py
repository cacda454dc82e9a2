"""Names that are imported at first use: exports of packages, and classes that a user's file names."""

from __future__ import annotations

import ast
import contextlib
import importlib
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from insight.runtime.errors import ConfigError, nearest

_ALLOWED_VARIABLE = "INSIGHT_ALLOW_PACKAGE"
OWN_PACKAGES = ("insight", "torch", "lightning", "torchmetrics")
"""The packages whose classes a file from somebody else may name."""


def lazy_exports(
    package: str, moved: Mapping[str, str] | None = None
) -> tuple[Callable[[str], Any], list[str]]:
    """The module ``__getattr__`` (PEP 562) and the ``__all__`` of a package that imports at first use.

    The names are those that ``__init__.py`` imports under ``if TYPE_CHECKING:``. Those in ``moved`` were
    exported once, and have other import paths now.
    """
    file = sys.modules[package].__file__
    assert file is not None
    places = moved or {}
    exports = {
        alias.asname or alias.name: (str(line.module), alias.name)
        for block in ast.parse(Path(file).read_text(encoding="utf-8")).body
        if isinstance(block, ast.If)
        for line in block.body
        if isinstance(line, ast.ImportFrom)
        for alias in line.names
    }

    def __getattr__(name: str) -> Any:  # noqa: N807 (a module-level hook)
        if name in places:
            raise AttributeError(f"{package}.{name} has moved: use {places[name]}")
        if name not in exports:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module, attribute = exports[name]
        value = getattr(importlib.import_module(module), attribute)
        setattr(sys.modules[package], name, value)
        return value

    return __getattr__, sorted(exports)


def allowed_packages() -> tuple[str, ...]:
    """The user's own packages whose classes files may name, as ``--allow_package`` said.

    They are kept in the environment of this process and of those that it starts, and in no file.
    """
    return tuple(name for name in os.environ.get(_ALLOWED_VARIABLE, "").split(",") if name)


@contextlib.contextmanager
def allowing(packages: Iterable[str]) -> Iterator[None]:
    """Allow packages inside the block, in addition to those that are allowed already."""
    with restored_variables(_ALLOWED_VARIABLE):
        if names := dict.fromkeys([*allowed_packages(), *packages]):
            os.environ[_ALLOWED_VARIABLE] = ",".join(names)
        try:
            yield
        except BaseException as error:
            # With this, the error message can say that the user's own code raised the error.
            with contextlib.suppress(AttributeError):
                error.own_packages = allowed_packages()  # type: ignore[attr-defined]
            raise


@contextlib.contextmanager
def restored_variables(*names: str) -> Iterator[None]:
    """Restore environment variables at the end of the block."""
    before = {name: os.environ.get(name) for name in names}
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


@contextlib.contextmanager
def working_folder_on_path() -> Iterator[None]:
    """Let packages in the working folder be imported inside the block, after all installed ones."""
    added = ""
    with contextlib.suppress(OSError):  # the folder has been removed
        folder = os.getcwd()
        if folder not in sys.path and "" not in sys.path:
            sys.path.append(added := folder)
    try:
        yield
    finally:
        if added and added in sys.path:
            sys.path.remove(added)


def import_class(path: str, option: str = "class_path") -> Any:
    """The class or function that a dotted path such as ``my_package.positions.Odd`` names.

    Raises:
        ConfigError: The module or the name does not exist, or the import fails; it names ``option``.
    """
    module_name, _, name = path.rpartition(".")
    module = None
    try:
        module = importlib.import_module(module_name)
        return getattr(module, name)
    except Exception as error:
        if isinstance(error, AttributeError) and module is not None:
            match = nearest(name, [known for known in vars(module) if not known.startswith("_")])
            problem = f"the module {module_name!r} has no class {name!r}"
            remedy = f"did you mean {match!r}?" if match else "check its name"
        elif isinstance(error, ModuleNotFoundError) and f"{module_name}.".startswith(f"{error.name}."):
            problem = f"there is no module {error.name!r}"
            remedy = "install it, or put it into the working folder or on PYTHONPATH"
        else:
            reason = f"{type(error).__name__}: {error}{_place_of(error)}"
            problem = f"the module {module_name!r} cannot be imported: {reason}"
            remedy = "mend the module; --debug shows the traceback"
        raise ConfigError(problem, remedy, option=option, value=path) from error


def _place_of(error: Exception) -> str:
    """File and line of an error in a module that is imported."""
    if isinstance(error, SyntaxError) and error.filename:
        return f" ({error.filename}, line {error.lineno})"
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = frame.filename
        if path != __file__ and not path.startswith("<frozen") and Path(path).parent.name != "importlib":
            return f" ({path}, line {frame.lineno})"
    return ""
