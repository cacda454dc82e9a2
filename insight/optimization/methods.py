"""The methods of quantization: the modules that each quantizes, and its types of weights and activations."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import nn
from torchao.quantization import (
    AffineQuantizedMinMaxObserver,
    Int8DynamicActivationInt8WeightConfig,
    Int8StaticActivationInt8WeightConfig,
    Int8WeightOnlyConfig,
    MappingType,
    PerGroup,
    PerRow,
    PerTensor,
    quantize_,
)
from torchao.utils import should_reduce_range

from insight.models import Decoder, RouterProjection, StackedProjection
from insight.models.attention.latent import LatentModule
from insight.optimization.measurement.quality import Calibration

if TYPE_CHECKING:
    from insight.optimization.config import QuantizationConfig

_CALIBRATION_BATCH = 16


@dataclass(frozen=True)
class KeptModule:
    """A module that is not quantized, by its name in ``network.named_modules()``, with the reason.

    ``is_linear`` says whether it is a linear map, which int8 methods usually quantize.
    """

    name: str
    reason: str
    is_linear: bool = False


TIED_HEAD = KeptModule("head", "tied: its matrix is that of the embedding, which only looks rows up")


@dataclass(frozen=True)
class Selection:
    """The modules of a network that a method quantizes, by name, and the others with parameters."""

    quantized: dict[str, nn.Module]
    kept: tuple[KeptModule, ...]


class QuantizationMethod:
    """A method of quantization.

    Attributes:
        needs_calibration: Whether :meth:`convert` needs calibration text.
        keeps_head: Why the method does not quantize the head; empty if it does.
    """

    needs_calibration: ClassVar[bool] = False
    keeps_head: ClassVar[str] = ""

    def dtype(self, config: QuantizationConfig) -> torch.dtype:
        """The type of the floating-point parts."""
        return torch.bfloat16 if config.dtype == "bfloat16" else torch.float32

    def select(self, network: Decoder, config: QuantizationConfig) -> Selection:
        """Select the modules to quantize, without changing the network."""
        return _select_linear_maps(network, config.group_size, self.keeps_head)

    def convert(
        self, network: Decoder, selection: Selection, config: QuantizationConfig, text: Calibration | None
    ) -> None:
        """Quantize the selected modules of ``network`` in place.

        The network is in :meth:`dtype` and in evaluation mode, without gradients. ``text`` is training
        text, if :attr:`needs_calibration`.
        """
        scheme = self.scheme(should_reduce_range(network.embedding.weight.device), config)
        for module in selection.quantized.values():
            quantize_(module, scheme)

    def scheme(self, reduce_range: bool, config: QuantizationConfig) -> Any:
        """The configuration for torchao; 7 bits if ``reduce_range``, since products overflow here."""
        raise NotImplementedError


class BFloat16(QuantizationMethod):
    """Weights and activations in bfloat16, with half the bytes, without scales and calibration.

    Norms still sum in float32 and rotary angles are float32, as always when the network runs in bfloat16.
    """

    def dtype(self, config: QuantizationConfig) -> torch.dtype:
        return torch.bfloat16

    def select(self, network: Decoder, config: QuantizationConfig) -> Selection:
        return Selection(dict(modules_with_parameters(network)), ())

    def convert(
        self, network: Decoder, selection: Selection, config: QuantizationConfig, text: Calibration | None
    ) -> None:
        network.to(torch.bfloat16)


class Int8WeightOnly(QuantizationMethod):
    """Symmetric int8 weights with a scale per output, or per group of its inputs; floating-point activations.

    Weights are dequantized for every product, so only storage and reading get cheaper.
    """

    def scheme(self, reduce_range: bool, config: QuantizationConfig) -> Any:
        granularity = PerRow() if config.group_size is None else PerGroup(config.group_size)
        return Int8WeightOnlyConfig(granularity=granularity, set_inductor_config=False)


class Int8Dynamic(QuantizationMethod):
    """Symmetric int8 weights with a scale per output, symmetric int8 activations with a scale per token.

    The scales of activations are computed at run time. Products are int8 by int8.
    """

    def scheme(self, reduce_range: bool, config: QuantizationConfig) -> Any:
        return Int8DynamicActivationInt8WeightConfig(set_inductor_config=False, reduce_range=reduce_range)


class Int8Static(QuantizationMethod):
    """Symmetric int8 weights with a scale per output, symmetric int8 activations with one scale per module.

    The range ends at the largest magnitude that torchao's ``AffineQuantizedMinMaxObserver`` saw on the
    calibration text; larger activations are clipped.
    """

    needs_calibration = True
    keeps_head = (
        "a calibrated scale fits inputs of one rank, and the head reads (batch, hidden) when it writes but "
        "(batch, sequence, hidden) when it is measured"
    )

    def convert(
        self, network: Decoder, selection: Selection, config: QuantizationConfig, text: Calibration | None
    ) -> None:
        assert text is not None
        device: torch.device = network.embedding.weight.device
        reduce_range = should_reduce_range(device)
        observers = {module: _observer(reduce_range) for module in selection.quantized.values()}

        def observe(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            observers[module](inputs[0])

        hooks = [module.register_forward_pre_hook(observe) for module in observers]
        for start in range(0, len(text.windows), _CALIBRATION_BATCH):
            network(torch.as_tensor(text.windows[start : start + _CALIBRATION_BATCH], device=device))
        for hook in hooks:
            hook.remove()
        for module, observer in observers.items():
            scheme = self.scheme(reduce_range, config)
            scheme.act_quant_scale, _ = observer.calculate_qparams()
            quantize_(module, scheme)

    def scheme(self, reduce_range: bool, config: QuantizationConfig) -> Any:
        return Int8StaticActivationInt8WeightConfig(
            granularity=[PerTensor(), PerRow()], set_inductor_config=False, reduce_range=reduce_range
        )


_METHODS: dict[str, type[QuantizationMethod]] = {
    "bf16": BFloat16,
    "int8_weight_only": Int8WeightOnly,
    "int8_dynamic": Int8Dynamic,
    "int8_static": Int8Static,
}


def find_method(name: str) -> QuantizationMethod:
    """The method with a name from ``insight.optimization.METHODS``."""
    return _METHODS[name]()


def _select_linear_maps(network: Decoder, group_size: int | None, keeps_head: str) -> Selection:
    """Select the linear maps of a network, except for routers, stacked experts and a tied head.

    A map whose number of inputs ``group_size`` does not divide is kept.
    """
    quantized: dict[str, nn.Module] = {}
    kept = []
    read_in_parts = {
        f"{name}.key_value" for name, module in network.named_modules() if isinstance(module, LatentModule)
    }
    for name, module in modules_with_parameters(network):
        is_linear = isinstance(module, (RouterProjection, StackedProjection, nn.Linear))
        if isinstance(module, RouterProjection):
            reason = "it chooses experts: rounding would choose others"
        elif isinstance(module, StackedProjection):
            reason = "experts stacked in one tensor, which the integer products do not take"
        elif isinstance(module, nn.Embedding):
            reason = "its rows are looked up, not multiplied"
        elif not isinstance(module, nn.Linear):
            reason = "not a linear map"
        elif name in read_in_parts:
            reason = "generating multiplies by parts of its matrix, which only a plain one has"
        elif group_size is not None and module.in_features % group_size:
            reason = f"group_size={group_size} does not divide its {module.in_features} inputs"
        else:
            reason = keeps_head if module is network.head else ""
        if reason:
            kept.append(KeptModule(name, reason, is_linear))
        else:
            quantized[name] = module
    if network.head is None:
        kept.append(TIED_HEAD)
    return Selection(quantized, tuple(kept))


def modules_with_parameters(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Every module with its own parameters, by name; a shared module once."""
    for name, module in network.named_modules():
        if any(True for _ in module.parameters(recurse=False)):
            yield name, module


def _observer(reduce_range: bool) -> Any:
    low, high = (-64, 63) if reduce_range else (-128, 127)
    return AffineQuantizedMinMaxObserver(
        MappingType.SYMMETRIC,
        torch.int8,
        granularity=PerTensor(),
        quant_min=low,
        quant_max=high,
        eps=torch.finfo(torch.float32).eps,
        scale_dtype=torch.float32,
        zero_point_dtype=torch.int8,
        keepdim=True,  # torchao requires a scale with the rank of the activations
    )
