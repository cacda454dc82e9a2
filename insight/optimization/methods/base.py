"""What a method of quantization must say and do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import nn

from insight.models import Decoder
from insight.optimization.calibration import Calibration
from insight.optimization.config import QuantizationConfig
from insight.optimization.modules import Selection


class QuantizationMethod(ABC):
    """One way to store and multiply the weights of a network.

    Attributes:
        needs_calibration: Whether :meth:`convert` reads text.
        multiplies_integers: Whether activations are quantized too, so that products are of integers.
    """

    needs_calibration: ClassVar[bool] = False
    multiplies_integers: ClassVar[bool] = False

    def dtype(self, config: QuantizationConfig) -> torch.dtype:
        """The type of everything that stays floating point."""
        return torch.bfloat16 if config.dtype == "bfloat16" else torch.float32

    @abstractmethod
    def select(self, network: Decoder, config: QuantizationConfig) -> Selection:
        """What would be quantized and what would not, with the reasons; changes nothing."""

    @abstractmethod
    def convert(
        self,
        network: Decoder,
        modules: Mapping[str, nn.Module],
        config: QuantizationConfig,
        calibration: Calibration | None,
    ) -> None:
        """Quantize the selected modules of ``network`` in place.

        Args:
            network: Already in :meth:`dtype`, in evaluation mode, without gradients.
            modules: Of ``network``, by name.
            config: The user's.
            calibration: Text, if :attr:`needs_calibration`.
        """
