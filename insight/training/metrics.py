"""Exact sums over a text: loss, perplexity and bits per byte."""

from __future__ import annotations

import math

import torch
from torchmetrics import Metric


class TextLikelihood(Metric):
    """Negative log-likelihood of a text, with the tokens and bytes that it covers.

    The sums are float64 and int64 and reduce over ranks by addition, so the result does not depend on how
    the text was cut into batches or spread over processes.
    """

    full_state_update = False

    nll: torch.Tensor
    num_tokens: torch.Tensor
    num_bytes: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        # Device types without float64 (mps) would refuse the first state.
        self.add_state("nll", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("num_tokens", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("num_bytes", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        self.set_dtype(torch.float64)

    def update(self, nll: torch.Tensor, num_tokens: torch.Tensor, num_bytes: torch.Tensor) -> None:
        """Add a batch: its summed negative log-likelihood in nats, its targets, and their UTF-8 bytes."""
        self.nll += nll.detach().double()
        self.num_tokens += num_tokens
        self.num_bytes += num_bytes

    def compute(self) -> dict[str, torch.Tensor]:
        """``loss`` (nats a token), ``perplexity`` and ``bits_per_byte``."""
        loss = self.nll / self.num_tokens
        return {
            "loss": loss,
            "perplexity": loss.exp(),
            "bits_per_byte": self.nll / math.log(2) / self.num_bytes,
        }
