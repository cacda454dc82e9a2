"""Which class a method's name stands for."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from insight.runtime.errors import ConfigError, nearest

if TYPE_CHECKING:
    from insight.optimization.methods.base import QuantizationMethod

METHODS = {
    "bf16": "BFloat16",
    "int8_weight_only": "Int8WeightOnly",
    "int8_dynamic": "Int8Dynamic",
    "int8_static": "Int8Static",
}
"""Name of a method → its class, in the module of that name in this folder."""


def check_method_name(name: str) -> None:
    """Refuse a name that stands for no method; needs no torch.

    Raises:
        ConfigError: There is no such method; the nearest name is offered.
    """
    if name not in METHODS:
        match = nearest(name, METHODS)
        remedy = f"did you mean {match!r}?" if match else f"use one of {', '.join(METHODS)}"
        raise ConfigError(f"method={name!r} is unknown", remedy)


def find_method(name: str) -> QuantizationMethod:
    """The method called ``name``.

    Raises:
        ConfigError: As :func:`check_method_name`.
    """
    check_method_name(name)
    module = importlib.import_module(f"insight.optimization.methods.{name}")
    method: QuantizationMethod = getattr(module, METHODS[name])()
    return method
