"""A short causal convolution of each channel by itself: a token and its nearest predecessors."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class ShortConvolution(nn.Module):
    """silu(sum over d < width of weight_d * x_(t-d)) of every channel.

    As before the keys, queries and values of gated delta nets (Yang et al. 2024, arXiv 2412.06464).

    Args:
        num_channels: Channels.
        width: Tokens that each output sees, its own included.
    """

    parameter_role = "vector"  # rows of a few numbers: no matrix to orthogonalise

    def __init__(self, num_channels: int, width: int) -> None:
        super().__init__()
        self.width = width
        self.weight = nn.Parameter(torch.empty(num_channels, width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """First values as of torch's own convolution."""
        bound = self.width**-0.5
        nn.init.uniform_(self.weight, -bound, bound)

    def forward(self, inputs: torch.Tensor, document_ids: torch.Tensor | None = None) -> torch.Tensor:
        """Outputs ``(batch, tokens, channels)``, in float32 or better.

        Args:
            inputs: ``(batch, width - 1 + tokens, channels)``: first what came before the tokens, or zeros.
            document_ids: int64 ``(batch, tokens)``, each in one piece: tokens of others are taken as zero.
        """
        inputs = inputs.to(torch.promote_types(inputs.dtype, torch.float32))
        num_before = self.width - 1
        num_tokens = inputs.shape[1] - num_before
        factors = self.weight.to(inputs.dtype).unbind(1)
        ids = None if document_ids is None else F.pad(document_ids, (num_before, 0))
        # A sum of shifted copies: torch's convolution of single channels is slow on a CPU, and a document's
        # first tokens must not see the one before.
        output = inputs[:, num_before:] * factors[-1]
        for start, factor in enumerate(factors[:-1]):
            shifted = inputs[:, start : start + num_tokens]
            if ids is not None and document_ids is not None:
                shifted = shifted * torch.eq(ids[:, start : start + num_tokens], document_ids).unsqueeze(-1)
            output = output + shifted * factor
        return F.silu(output)
