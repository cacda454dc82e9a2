"""Every weight in bfloat16: half the bytes, no scales, nothing to calibrate."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from insight.models import Decoder
from insight.optimization.calibration import Calibration
from insight.optimization.config import QuantizationConfig
from insight.optimization.methods.base import QuantizationMethod
from insight.optimization.modules import Selection, modules_with_parameters


class BFloat16(QuantizationMethod):
    """Rounds weights and activations to 8 bits of mantissa.

    Norms still sum in float32 and rotary angles stay float32: that is how the network computes in bfloat16.
    """

    def dtype(self, config: QuantizationConfig) -> torch.dtype:
        return torch.bfloat16

    def select(self, network: Decoder, config: QuantizationConfig) -> Selection:
        return Selection(dict(modules_with_parameters(network)), ())

    def convert(
        self,
        network: Decoder,
        modules: Mapping[str, nn.Module],
        config: QuantizationConfig,
        calibration: Calibration | None,
    ) -> None:
        for module in modules.values():
            module.to(torch.bfloat16)
