"""Products of int8 with int8: the scale of a layer's activations is fixed, from training text."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torchao.quantization import (
    AffineQuantizedMinMaxObserver,
    Int8StaticActivationInt8WeightConfig,
    MappingType,
    PerRow,
    PerTensor,
    quantize_,
)
from torchao.utils import should_reduce_range

from insight.models import Decoder
from insight.optimization.calibration import Calibration
from insight.optimization.config import QuantizationConfig
from insight.optimization.methods.base import QuantizationMethod
from insight.optimization.modules import Selection, select_linear_maps

_BATCH_SIZE = 16
_KEEP_HEAD = (
    "a calibrated scale fits inputs of one rank, and the head reads (batch, hidden) when it writes but "
    "(batch, sequence, hidden) when it is measured"
)


class Int8Static(QuantizationMethod):
    """Symmetric int8 weights with a scale an output, symmetric int8 activations with one scale a layer.

    The end of the range is the largest magnitude that torchao's ``AffineQuantizedMinMaxObserver`` saw on the
    calibration text; what is larger later is clipped.
    """

    needs_calibration = True
    multiplies_integers = True

    def select(self, network: Decoder, config: QuantizationConfig) -> Selection:
        return select_linear_maps(network, keep_head=_KEEP_HEAD)

    def convert(
        self,
        network: Decoder,
        modules: Mapping[str, nn.Module],
        config: QuantizationConfig,
        calibration: Calibration | None,
    ) -> None:
        assert calibration is not None
        device: torch.device = network.embedding.weight.device
        reduce_range = should_reduce_range(device)
        observers = {name: _observer(reduce_range) for name in modules}
        hooks = [
            module.register_forward_pre_hook(_observing(observers[name])) for name, module in modules.items()
        ]
        for start in range(0, len(calibration.windows), _BATCH_SIZE):
            network(torch.as_tensor(calibration.windows[start : start + _BATCH_SIZE], device=device))
        for hook in hooks:
            hook.remove()
        for name, module in modules.items():
            scale, _ = observers[name].calculate_qparams()
            scheme = Int8StaticActivationInt8WeightConfig(
                act_quant_scale=scale,
                granularity=[PerTensor(), PerRow()],
                set_inductor_config=False,
                reduce_range=reduce_range,
            )
            quantize_(module, scheme)


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
