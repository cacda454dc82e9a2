"""Matrices stored as int8, widened again for every product: fewer bytes to keep and to read."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn
from torchao.quantization import Int8WeightOnlyConfig, PerGroup, PerRow, quantize_

from insight.models import Decoder
from insight.optimization.calibration import Calibration
from insight.optimization.config import QuantizationConfig
from insight.optimization.methods.base import QuantizationMethod
from insight.optimization.modules import Selection, select_linear_maps


class Int8WeightOnly(QuantizationMethod):
    """Symmetric int8 weights with a float32 scale an output, or a group of its inputs; activations float."""

    def select(self, network: Decoder, config: QuantizationConfig) -> Selection:
        return select_linear_maps(network, group_size=config.group_size)

    def convert(
        self,
        network: Decoder,
        modules: Mapping[str, nn.Module],
        config: QuantizationConfig,
        calibration: Calibration | None,
    ) -> None:
        granularity = PerRow() if config.group_size is None else PerGroup(config.group_size)
        for module in modules.values():
            quantize_(module, Int8WeightOnlyConfig(granularity=granularity, set_inductor_config=False))
