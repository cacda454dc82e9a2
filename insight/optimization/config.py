"""How to quantize a network: the options of YAML, Python and the command line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from insight.optimization.methods.registry import check_method_name
from insight.runtime.component import Component
from insight.runtime.errors import ConfigError

if TYPE_CHECKING:
    from insight.optimization.quantizer import Quantizer


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
        check_method_name(self.method)
        if self.dtype not in ("float32", "bfloat16"):
            raise ConfigError(f"dtype={self.dtype!r}: must be float32 or bfloat16", "use float32")
        if self.group_size is not None:
            if self.method != "int8_weight_only":
                raise ConfigError(
                    f"group_size={self.group_size}: {self.method} has no groups",
                    "leave it out, or use int8_weight_only",
                )
            if self.group_size < 2:
                raise ConfigError(f"group_size={self.group_size}: must be at least 2", "use for example 32")

    @property
    def name(self) -> str:
        """What tables call it: ``int8_dynamic`` or ``int8_dynamic + compile``."""
        return f"{self.method} + compile" if self.compile else self.method

    def build(self) -> Quantizer:
        """What checks and quantizes models so."""
        from insight.optimization.quantizer import Quantizer

        return Quantizer(self)
