"""Products of int8 with int8: the scale of each token's activations is taken as it comes."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn
from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_
from torchao.utils import should_reduce_range

from insight.models import Decoder
from insight.optimization.calibration import Calibration
from insight.optimization.config import QuantizationConfig
from insight.optimization.methods.base import QuantizationMethod
from insight.optimization.modules import Selection, select_linear_maps


class Int8Dynamic(QuantizationMethod):
    """Symmetric int8 weights with a scale an output, symmetric int8 activations with a scale a token."""

    multiplies_integers = True

    def select(self, network: Decoder, config: QuantizationConfig) -> Selection:
        return select_linear_maps(network)

    def convert(
        self,
        network: Decoder,
        modules: Mapping[str, nn.Module],
        config: QuantizationConfig,
        calibration: Calibration | None,
    ) -> None:
        device: torch.device = network.embedding.weight.device
        scheme = Int8DynamicActivationInt8WeightConfig(
            set_inductor_config=False, reduce_range=should_reduce_range(device)
        )
        for module in modules.values():
            quantize_(module, scheme)
