"""Which ways to quantize a model are tried, in which order."""

from __future__ import annotations

from typing import Literal, cast

from insight.optimization.config import QuantizationConfig
from insight.runtime.errors import ConfigError, nearest

# In the order in which time is spent on them: where compiling paid most, when it was measured, comes first.
_METHODS = ("int8_dynamic", "bf16", "int8_weight_only", "int8_static")
_MODES = {"auto": (False, True), "on": (True,), "off": (False,)}


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
        dtype: Of what stays floating point; ``None`` takes bfloat16 where training would (its products were
            measured to be clearly faster), float32 elsewhere.
        group_size: Of ``int8_weight_only``.

    Raises:
        ConfigError: A name is unknown, or the options do not go together.
    """
    if compile not in _MODES:
        match = nearest(compile, _MODES)
        raise ConfigError(f"compile={compile!r} is unknown", f"use {match or 'auto, on or off'}")
    methods = _METHODS if method == "auto" else (method,)
    for name in methods:  # every mistake is found before anything is measured
        QuantizationConfig(name, group_size=group_size)
    chosen = cast(Literal["float32", "bfloat16"], dtype if dtype is not None else _measured_dtype())
    configs = [
        QuantizationConfig(name, compiled, chosen, group_size)
        for compiled in _MODES[compile]
        for name in methods
    ]
    # On a slow machine the time may be over before the compiled ones: the most promising of them comes first.
    return sorted(configs, key=lambda config: not (config.compile and config.method == methods[0]))


def _measured_dtype() -> str:
    from insight.runtime.hardware import choose_precision, measure_hardware

    return "bfloat16" if choose_precision(measure_hardware()).startswith("bf16") else "float32"
