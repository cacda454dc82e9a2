"""How to quantize a network: the options of YAML, Python and the command line; needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, cast

from insight.runtime.component import Component
from insight.runtime.errors import ConfigError, nearest
from insight.runtime.numbers import require_number

if TYPE_CHECKING:
    from insight.optimization.quantizer import Quantizer

METHODS = ("bf16", "int8_weight_only", "int8_dynamic", "int8_static")
"""The names of the methods; their classes are in ``methods.py``."""

# A search spends its time in this order: where compiling paid most, when it was measured, comes first.
_SEARCH_ORDER = ("int8_dynamic", "bf16", "int8_weight_only", "int8_static")
_COMPILE_CHOICES = {"auto": (False, True), "on": (True,), "off": (False,)}


@dataclass(frozen=True)
class QuantizationConfig(Component):
    """How to quantize a trained network.

    Args:
        method: ``bf16``, ``int8_weight_only``, ``int8_dynamic`` (activations quantized as they come) or
            ``int8_static`` (activation ranges calibrated on training text).
        compile: Whether the result runs through ``torch.compile``.
        dtype: Type of what stays floating point in an int8 network: ``float32`` or ``bfloat16``.
        group_size: Inputs that share a scale in ``int8_weight_only``; ``None`` = one scale an output.
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
            raise ConfigError(
                f"{self.method} has no groups",
                "leave it out, or use int8_weight_only",
                option="group_size",
                value=self.group_size,
            )
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
    method: str = "auto",
    compile: str = "auto",
    dtype: str | None = None,
    group_size: int | None = None,
) -> list[QuantizationConfig]:
    """The candidates of a search.

    Args:
        method: One method, or ``auto`` for all.
        compile: ``auto`` for eager and compiled, ``on`` for compiled only, ``off`` for eager only.
        dtype: Type of what stays floating point; ``None`` takes bfloat16 where training would (its products
            were measured to be clearly faster), float32 elsewhere.
        group_size: The ``group_size`` of ``int8_weight_only``.

    Raises:
        ConfigError: A name is unknown, or the options do not go together.
    """
    _require_one_of(_COMPILE_CHOICES, "compile", compile)
    if method != "auto":
        _require_one_of(("auto", *METHODS), "method", method)
    methods = _SEARCH_ORDER if method == "auto" else (method,)
    for name in methods:  # every mistake is found before anything is measured
        QuantizationConfig(name, group_size=group_size)
    chosen = cast(Literal["float32", "bfloat16"], dtype if dtype is not None else _measured_dtype())
    configs = [
        QuantizationConfig(name, compiled, chosen, group_size)
        for compiled in _COMPILE_CHOICES[compile]
        for name in methods
    ]
    # On a slow machine the time may be over before the compiled ones: the most promising of them comes first.
    return sorted(configs, key=lambda config: not (config.compile and config.method == methods[0]))


def check_search(max_quality_loss: float, seconds: float) -> None:
    """Refuse bounds that no search can keep.

    Raises:
        ConfigError: A value is negative, infinite or no number.
    """
    require_number("max_quality_loss", max_quality_loss, "0.005 for half a percent", at_least=0, below=1)
    require_number("seconds", seconds, 45, above=0)


def _require_one_of(names: tuple[str, ...] | dict[str, tuple[bool, ...]], option: str, value: object) -> None:
    if value not in names:
        match = nearest(str(value), names)
        remedy = f"did you mean {match!r}?" if match else f"use one of {', '.join(names)}"
        raise ConfigError("is unknown", remedy, option=option, value=value)


def _measured_dtype() -> str:
    from insight.runtime.hardware import choose_precision, measure_hardware

    return "bfloat16" if choose_precision(measure_hardware()).startswith("bf16") else "float32"
