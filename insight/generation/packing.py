"""Weights in the layout that a CPU multiplies fastest, for the time of a search."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from insight.models import Decoder, EncoderDecoder

# Measured on AVX-512, in microseconds plain and packed, from 192 channels: 5 rows to 192 channels 9 and 13,
# to 576 24 and 17; 32 rows 25 and 21, 74 and 41; 160 rows 112 and 56, 327 and 209; 32 rows to 4,000 519 and
# 227. One row to 4,000 gains nothing, from 256 to 8,000 115 and 95, from 512 to 32,000 4,090 and 1,440.
_SMALLEST = 2**15
_LARGE = 2**20
_FEWEST_PRODUCTS = 400_000
# Functions of torch that its documentation does not name; without them nothing is packed.
_PACK: Any = getattr(torch.ops.mkldnn, "_reorder_linear_weight", None)
_MULTIPLY: Any = getattr(torch.ops.mkldnn, "_linear_pointwise", None)

Product = Callable[[Tensor], Tensor]


class PackedWeights:
    """The large matrices of a network, packed by oneDNN at their first use and kept while they do not change.

    torch packs them this way for compiled networks. Nothing is packed on other devices, in other data types,
    in modules of another kind (quantized ones) and where torch was built without oneDNN; results then come
    from the plain product, to which packed ones are equal up to rounding.

    Args:
        network: The network.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self._packed: dict[int, tuple[int, Tensor]] = {}

    @contextlib.contextmanager
    def used(self) -> Iterator[None]:
        """Let the linear maps of the network use packed weights inside the ``with`` block."""
        changed = []
        for module in self.network.modules():
            if isinstance(module, nn.Linear) and type(module).forward is nn.Linear.forward:
                product = self.product(module.weight, module.bias)
                if product is not None and "forward" not in vars(module):
                    vars(module)["forward"] = product
                    changed.append(module)
        try:
            yield
        finally:
            for module in changed:
                del vars(module)["forward"]

    def head(self, network: Decoder | EncoderDecoder) -> Product:
        """Return ``network.logits`` with a packed matrix, also where that is the one of the embedding."""
        decoder = network.decoder if isinstance(network, EncoderDecoder) else network
        product = self.product(decoder.embedding.weight, None) if decoder.head is None else None
        if product is None:
            return network.logits
        bias = network.logit_bias if isinstance(network, EncoderDecoder) else None
        if bias is None:
            return lambda hidden: decoder.cap(product(hidden))
        return lambda hidden: decoder.cap(product(hidden)) + bias

    def product(self, weight: Tensor, bias: Tensor | None) -> Product | None:
        """Return a linear map with a packed weight, or ``None`` where packing is not possible or no gain."""
        if _PACK is None or _MULTIPLY is None or type(weight) is not nn.Parameter:
            return None
        is_plain = weight.device.type == "cpu" and weight.dtype == torch.float32 and not weight.is_inference()
        if not is_plain or weight.numel() < _SMALLEST:
            return None

        size = weight.numel()
        fewest = max(1 if size >= _LARGE else 2, -(-_FEWEST_PRODUCTS // size))

        def multiply(rows: Tensor) -> Tensor:
            if rows.dtype != torch.float32 or rows.numel() < fewest * weight.shape[1]:
                return F.linear(rows, weight, bias)
            output: Tensor = _MULTIPLY(rows, self._of(weight), bias, "none", [], "")
            return output

        return multiply

    def _of(self, weight: Tensor) -> Tensor:
        """The packed form of a weight, made anew if its values have changed."""
        version, packed = self._packed.get(id(weight), (-1, weight))
        if version != weight._version:
            packed = _PACK(weight.detach(), None)
            self._packed[id(weight)] = weight._version, packed
        return packed
