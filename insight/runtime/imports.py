"""Exports that import their module at first use, so that a command that needs no torch does not load it."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import Any


def lazy_exports(package: str, exports: dict[str, str]) -> Callable[[str], Any]:
    """A module ``__getattr__`` (PEP 562) that resolves ``name`` in the submodule ``exports[name]``.

    Args:
        package: The ``__name__`` of the package that exports.
        exports: Public name → submodule, e.g. ``{"BPETokenizer": "bpe"}``.
    """

    def __getattr__(name: str) -> Any:  # noqa: N807 (a module-level hook)
        if name not in exports:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(f"{package}.{exports[name]}"), name)
        setattr(sys.modules[package], name, value)
        return value

    return __getattr__
