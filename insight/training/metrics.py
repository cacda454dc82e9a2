"""Exact sums over a text: loss, perplexity and bits per byte."""

from __future__ import annotations

import math

import torch
from torchmetrics import Metric


class TextLikelihood(Metric):
    """Negative log-likelihood of a text, with its numbers of tokens and bytes.

    The sums are float64 and int64 and are added over ranks, so the result does not depend on the batches and
    processes that the text was divided into.
    """

    full_state_update = False

    nll: torch.Tensor
    num_tokens: torch.Tensor
    num_bytes: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        # Device types without float64 (mps) would reject the first state.
        self.add_state("nll", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("num_tokens", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("num_bytes", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        self.set_dtype(torch.float64)

    def update(self, nll: torch.Tensor, num_tokens: torch.Tensor, num_bytes: torch.Tensor) -> None:
        """Add a batch: summed negative log-likelihood in nats, number of targets and of their UTF-8 bytes."""
        self.nll += nll.detach().double()
        self.num_tokens += num_tokens
        self.num_bytes += num_bytes

    def compute(self) -> dict[str, torch.Tensor]:
        """The metrics ``loss`` (nats per token), ``perplexity`` and ``bits_per_byte``."""
        loss = self.nll / self.num_tokens
        return {
            "loss": loss,
            "perplexity": loss.exp(),
            "bits_per_byte": self.nll / math.log(2) / self.num_bytes,
        }
