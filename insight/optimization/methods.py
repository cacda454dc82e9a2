"""The methods of quantization: which modules each takes, and how it stores and multiplies their weights."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
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
from insight.optimization.measurement.quality import Calibration

if TYPE_CHECKING:
    from insight.optimization.config import QuantizationConfig

_CALIBRATION_BATCH = 16
_ROUTER = "it chooses experts: rounding would choose others"
_EXPERTS = "experts stacked in one tensor, which the integer products do not take"
_STATIC_HEAD = (
    "a calibrated scale fits inputs of one rank, and the head reads (batch, hidden) when it writes but "
    "(batch, sequence, hidden) when it is measured"
)


@dataclass(frozen=True)
class KeptModule:
    """A module that was left as it is.

    Args:
        name: Its name in ``network.named_modules()``.
        reason: Why the method does not take it.
        is_linear: Whether it multiplies by a matrix, which is what int8 methods take elsewhere.
    """

    name: str
    reason: str
    is_linear: bool = False


TIED_HEAD = KeptModule("head", "tied: its matrix is that of the embedding, which only looks rows up")


@dataclass(frozen=True)
class Selection:
    """A division of a network's modules.

    Attributes:
        quantized: Modules to quantize, by name.
        kept: The others that hold parameters, with the reasons.
    """

    quantized: dict[str, nn.Module]
    kept: tuple[KeptModule, ...]


class QuantizationMethod(ABC):
    """One way to store and multiply the weights of a network.

    Attributes:
        needs_calibration: Whether :meth:`convert` reads text.
    """

    needs_calibration: ClassVar[bool] = False

    def dtype(self, config: QuantizationConfig) -> torch.dtype:
        """The type of everything that stays floating point."""
        return torch.bfloat16 if config.dtype == "bfloat16" else torch.float32

    def select(self, network: Decoder, config: QuantizationConfig) -> Selection:
        """Say which modules would be quantized and which not, with the reasons; changes nothing."""
        return select_linear_maps(network)

    def convert(
        self, network: Decoder, selection: Selection, config: QuantizationConfig, text: Calibration | None
    ) -> None:
        """Quantize the selected modules of ``network`` in place.

        Args:
            network: The network, already in :meth:`dtype`, in evaluation mode, without gradients.
            selection: The answer of :meth:`select`.
            config: The user's choices.
            text: Training text, if :attr:`needs_calibration`.
        """
        scheme = self.scheme(should_reduce_range(network.embedding.weight.device), config)
        for module in selection.quantized.values():
            quantize_(module, scheme)

    @abstractmethod
    def scheme(self, reduce_range: bool, config: QuantizationConfig) -> Any:
        """The configuration of torchao, for modules that are all quantized alike.

        Args:
            reduce_range: Whether products of 8-bit integers overflow here, so that 7 bits are used.
            config: The user's choices.
        """


class BFloat16(QuantizationMethod):
    """Rounds weights and activations to 8 bits of mantissa: half the bytes, no scales, no calibration.

    Norms still sum in float32 and rotary angles stay float32: that is how the network computes in bfloat16.
    """

    def dtype(self, config: QuantizationConfig) -> torch.dtype:
        return torch.bfloat16

    def select(self, network: Decoder, config: QuantizationConfig) -> Selection:
        return Selection(dict(modules_with_parameters(network)), ())

    def convert(
        self, network: Decoder, selection: Selection, config: QuantizationConfig, text: Calibration | None
    ) -> None:
        network.to(torch.bfloat16)

    def scheme(self, reduce_range: bool, config: QuantizationConfig) -> Any:
        return None


class Int8WeightOnly(QuantizationMethod):
    """Symmetric int8 weights with a float32 scale an output, or a group of its inputs; activations float.

    Matrices are widened again for every product: fewer bytes to keep and to read.
    """

    def select(self, network: Decoder, config: QuantizationConfig) -> Selection:
        return select_linear_maps(network, group_size=config.group_size)

    def scheme(self, reduce_range: bool, config: QuantizationConfig) -> Any:
        granularity = PerRow() if config.group_size is None else PerGroup(config.group_size)
        return Int8WeightOnlyConfig(granularity=granularity, set_inductor_config=False)


class Int8Dynamic(QuantizationMethod):
    """Symmetric int8 weights with a scale an output, symmetric int8 activations with a scale a token.

    The scale of each token's activations is taken as it comes. Products are of int8 with int8.
    """

    def scheme(self, reduce_range: bool, config: QuantizationConfig) -> Any:
        return Int8DynamicActivationInt8WeightConfig(set_inductor_config=False, reduce_range=reduce_range)


class Int8Static(QuantizationMethod):
    """Symmetric int8 weights with a scale an output, symmetric int8 activations with one scale a layer.

    The end of the range is the largest magnitude that torchao's ``AffineQuantizedMinMaxObserver`` saw on the
    calibration text; what is larger later is clipped.
    """

    needs_calibration = True

    def select(self, network: Decoder, config: QuantizationConfig) -> Selection:
        return select_linear_maps(network, keep_head=_STATIC_HEAD)

    def convert(
        self, network: Decoder, selection: Selection, config: QuantizationConfig, text: Calibration | None
    ) -> None:
        assert text is not None
        device: torch.device = network.embedding.weight.device
        reduce_range = should_reduce_range(device)
        modules = selection.quantized
        observers = {name: _observer(reduce_range) for name in modules}
        hooks = [
            module.register_forward_pre_hook(_observing(observers[name])) for name, module in modules.items()
        ]
        for start in range(0, len(text.windows), _CALIBRATION_BATCH):
            network(torch.as_tensor(text.windows[start : start + _CALIBRATION_BATCH], device=device))
        for hook in hooks:
            hook.remove()
        for name, module in modules.items():
            scheme = self.scheme(reduce_range, config)
            scheme.act_quant_scale, _ = observers[name].calculate_qparams()
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
    """The method of this name, which is one of ``insight.optimization.METHODS``."""
    return _METHODS[name]()


def select_linear_maps(
    network: Decoder, *, group_size: int | None = None, keep_head: str | None = None
) -> Selection:
    """The linear maps of a network that have a matrix of their own.

    Args:
        network: The network to look through.
        group_size: Inputs that share a scale; a map whose inputs it does not divide is kept.
        keep_head: Why the output head is kept; ``None`` quantizes it.
    """
    quantized: dict[str, nn.Module] = {}
    kept = []
    for name, module in modules_with_parameters(network):
        if isinstance(module, RouterProjection):
            kept.append(KeptModule(name, _ROUTER, is_linear=True))
        elif isinstance(module, StackedProjection):
            kept.append(KeptModule(name, _EXPERTS, is_linear=True))
        elif not isinstance(module, nn.Linear):
            looked_up = isinstance(module, nn.Embedding)
            reason = "its rows are looked up, not multiplied" if looked_up else "not a linear map"
            kept.append(KeptModule(name, reason))
        elif group_size is not None and module.in_features % group_size:
            reason = f"group_size={group_size} does not divide its {module.in_features} inputs"
            kept.append(KeptModule(name, reason, is_linear=True))
        elif module is network.head and keep_head is not None:
            kept.append(KeptModule(name, keep_head, is_linear=True))
        else:
            quantized[name] = module
    if network.head is None:
        kept.append(TIED_HEAD)
    return Selection(quantized, tuple(kept))


def modules_with_parameters(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Every module that holds parameters itself, by name; a shared one once."""
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
        keepdim=True,  # the scale then has the rank of the activations, as torchao asks
    )


def _observing(observer: nn.Module) -> Callable[[nn.Module, tuple[torch.Tensor, ...]], None]:
    def observe(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        observer(inputs[0])

    return observe
