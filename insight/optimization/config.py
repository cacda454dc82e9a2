"""The options of quantization for YAML, Python and the command line; this module does not import torch."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, cast

from insight.runtime.component import Component
from insight.runtime.errors import ConfigError, did_you_mean
from insight.runtime.numbers import require_number

if TYPE_CHECKING:
    from insight.optimization.quantizer import Quantizer

METHODS = ("bf16", "int8_weight_only", "int8_dynamic", "int8_static")
"""The names of the methods; their classes are in ``methods.py``."""

# The order of a search: the methods that gained most by compiling, when that was measured, come first.
_SEARCH_ORDER = ("int8_dynamic", "bf16", "int8_weight_only", "int8_static")
_COMPILE_CHOICES = {"auto": (False, True), "on": (True,), "off": (False,)}


@dataclass(frozen=True)
class QuantizationConfig(Component):
    """How to quantize a trained network.

    Args:
        method: ``bf16``, ``int8_weight_only``, ``int8_dynamic`` (activation ranges computed at run time) or
            ``int8_static`` (activation ranges calibrated on training text).
        compile: Whether the result runs through ``torch.compile``.
        dtype: Type of the floating-point parts of an int8 network: ``float32`` or ``bfloat16``.
        group_size: Number of inputs that share a scale in ``int8_weight_only``; ``None`` for one scale per
            output.
    """

    method: str = "int8_dynamic"
    compile: bool = False
    dtype: Literal["float32", "bfloat16"] = "float32"
    group_size: int | None = None

    def __post_init__(self) -> None:
        _require_one_of(METHODS, "method", self.method)
        if not isinstance(self.compile, bool):
            raise ConfigError("must be true or false", "use false", option="compile", value=self.compile)
        if self.dtype not in ("float32", "bfloat16"):
            raise ConfigError("must be float32 or bfloat16", "use float32", option="dtype", value=self.dtype)
        if self.group_size is not None and self.method != "int8_weight_only":
            remedy = "leave it out, or use int8_weight_only"
            problem = f"{self.method} has no groups"
            raise ConfigError(problem, remedy, option="group_size", value=self.group_size)
        require_number("group_size", self.group_size, 32, whole=True, optional=True, at_least=2)

    @property
    def name(self) -> str:
        """The name in tables: ``int8_dynamic`` or ``int8_dynamic + compile``."""
        return f"{self.method} + compile" if self.compile else self.method

    def build(self) -> Quantizer:
        """The object that checks and quantizes models in this way."""
        from insight.optimization.quantizer import Quantizer

        return Quantizer(self)


def plan(
    method: str = "auto", compile: str = "auto", dtype: str | None = None, group_size: int | None = None
) -> list[QuantizationConfig]:
    """The candidates of a search.

    Args:
        method: One method, or ``auto`` for all.
        compile: ``auto`` for eager and compiled, ``on`` for compiled only, ``off`` for eager only.
        dtype: Type of the floating-point parts; ``None`` for bfloat16 if its products were measured to be
            clearly faster, else float32.
        group_size: The ``group_size`` of ``int8_weight_only``.

    Raises:
        ConfigError: A name is unknown, or the options are incompatible.
    """
    _require_one_of(_COMPILE_CHOICES, "compile", compile)
    if method != "auto":
        _require_one_of(("auto", *METHODS), "method", method)
    methods = _SEARCH_ORDER if method == "auto" else (method,)
    for name in methods:  # find every mistake before measuring anything
        QuantizationConfig(name, group_size=group_size)
    if dtype is None:
        from insight.runtime.hardware import choose_precision, measure_hardware

        dtype = "bfloat16" if choose_precision(measure_hardware()).startswith("bf16") else "float32"
    chosen = cast(Literal["float32", "bfloat16"], dtype)
    pairs = itertools.product(_COMPILE_CHOICES[compile], methods)
    configs = [QuantizationConfig(name, compiled, chosen, group_size) for compiled, name in pairs]
    # The most promising compiled one comes first, since a slow machine may have no time for the others.
    return sorted(configs, key=lambda config: not (config.compile and config.method == methods[0]))


def check_search(max_quality_loss: float, seconds: float) -> None:
    """Refuse bounds that are out of range.

    Raises:
        ConfigError: A value is out of range, infinite or NaN.
    """
    require_number("max_quality_loss", max_quality_loss, "0.005 for half a percent", at_least=0, below=1)
    require_number("seconds", seconds, 45, above=0)


def _require_one_of(names: tuple[str, ...] | dict[str, tuple[bool, ...]], option: str, value: object) -> None:
    if value not in names:
        remedy = did_you_mean(str(value), names, f"use one of {', '.join(names)}")
        raise ConfigError("is unknown", remedy, option=option, value=value)
