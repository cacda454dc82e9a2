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

    This way a command that needs no torch does not load it. The names are those that ``__init__.py`` imports
    under ``if TYPE_CHECKING:``, so they are written once for type checkers and for the interpreter.

    Args:
        package: The ``__name__`` of the package.
        moved: Names that the package exported once, with their present import paths.
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
    before = os.environ.get(_ALLOWED_VARIABLE)
    names = dict.fromkeys([*allowed_packages(), *packages])
    if names:
        os.environ[_ALLOWED_VARIABLE] = ",".join(names)
    try:
        yield
    except BaseException as error:
        # With this, the error message can say that the user's own code raised the error.
        with contextlib.suppress(AttributeError):
            error.own_packages = allowed_packages()  # type: ignore[attr-defined]
        raise
    finally:
        if before is None:
            os.environ.pop(_ALLOWED_VARIABLE, None)
        else:
            os.environ[_ALLOWED_VARIABLE] = before


@contextlib.contextmanager
def working_folder_on_path() -> Iterator[None]:
    """Let packages in the working folder be imported inside the block, after all installed ones."""
    try:
        folder = os.getcwd()
    except OSError:  # the folder has been removed
        yield
        return
    is_new = folder not in sys.path and "" not in sys.path
    if is_new:
        sys.path.append(folder)
    try:
        yield
    finally:
        if is_new:
            with contextlib.suppress(ValueError):
                sys.path.remove(folder)


def import_class(path: str, option: str = "class_path") -> Any:
    """The class or function that a dotted path such as ``my_package.positions.Odd`` names.

    Raises:
        ConfigError: The module or the name does not exist, or the import fails; it names ``option``.
    """
    module_name, _, name = path.rpartition(".")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and (module_name == error.name or module_name.startswith(f"{error.name}.")):
            raise ConfigError(
                f"there is no module {error.name!r}",
                "install it, or put it into the working folder or on PYTHONPATH",
                option=option,
                value=path,
            ) from error
        raise _broken_module(module_name, path, option, error) from error
    except Exception as error:
        raise _broken_module(module_name, path, option, error) from error
    try:
        return getattr(module, name)
    except AttributeError as error:
        match = nearest(name, [known for known in vars(module) if not known.startswith("_")])
        raise ConfigError(
            f"the module {module_name!r} has no class {name!r}",
            f"did you mean {match!r}?" if match else "check its name",
            option=option,
            value=path,
        ) from error


def _broken_module(module: str, path: str, option: str, error: Exception) -> ConfigError:
    frames = traceback.extract_tb(error.__traceback__)
    outside = [
        frame for frame in frames if not frame.filename.startswith("<frozen") and frame.filename != __file__
    ]
    outside = [frame for frame in outside if Path(frame.filename).parent.name != "importlib"]
    place = f" ({outside[-1].filename}, line {outside[-1].lineno})" if outside else ""
    if isinstance(error, SyntaxError) and error.filename:
        place = f" ({error.filename}, line {error.lineno})"
    return ConfigError(
        f"the module {module!r} cannot be imported: {type(error).__name__}: {error}{place}",
        "mend the module; --debug shows the traceback",
        option=option,
        value=path,
    )
