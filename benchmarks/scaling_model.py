"""A model of the time of a training step on many ranks; nothing in this file was measured.

A message takes latency + bytes / bandwidth (Hockney 1994, doi 10.1016/S0167-8191(06)80021-9). All-reduce uses
the ring of Patarasu and Yuan 2009 (doi 10.1016/j.jpdc.2008.09.002), optimal in bytes, or recursive halving
and doubling (Rabenseifner; Thakur, Rabenseifner and Gropp 2005, doi 10.1177/1094342005051521), which needs
few messages; trees with two roots take about as long (Sanders, Speck and Traeff 2009, doi
10.1016/j.parco.2009.09.001). All-gather and reduce-scatter use a ring. Communication overlaps with computing:
gradients in buckets with the backward pass (Li et al. 2020, arXiv 2006.15704), and gathering with the block
before (Rajbhandari et al. 2020, arXiv 1910.02054; Zhao et al. 2023, arXiv 2304.11277).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

_BUCKET_BYTES = 25 * 2**20  # default of torch's DDP
_GRADIENT_BYTES = 4  # float32 in every precision
_GATHERED_BYTES = 2  # FSDP2 gathers the blocks in bfloat16 under bf16-mixed
_BACKWARD_TO_FORWARD = 2.0


@dataclass(frozen=True)
class Network:
    """A link from each rank to all others.

    Args:
        name: Name in the table.
        latency: Seconds that even the shortest message takes.
        bandwidth: Bytes per second in each direction.
    """

    name: str
    latency: float
    bandwidth: float


@dataclass(frozen=True)
class Transformer:
    """The size of a decoder.

    Args:
        name: Name in the table.
        num_layers: Number of blocks.
        hidden_size: Width of the residual stream.
        vocabulary_size: Rows of the embedding.
        num_embeddings: 1 if embedding and head share a matrix, else 2.
    """

    name: str
    num_layers: int
    hidden_size: int
    vocabulary_size: int
    num_embeddings: int = 1

    @property
    def block_parameters(self) -> int:
        """Parameters of one block: 12 d² (Kaplan et al. 2020, arXiv 2001.08361)."""
        return 12 * self.hidden_size**2

    @property
    def embedding_parameters(self) -> int:
        """Parameters of embedding and head."""
        return self.num_embeddings * self.vocabulary_size * self.hidden_size

    @property
    def num_parameters(self) -> int:
        """All parameters."""
        return self.num_layers * self.block_parameters + self.embedding_parameters

    def step_flops(self, num_tokens: int, sequence_length: int) -> float:
        """FLOPs of both passes: 6 per parameter and token, and attention (arXiv 2204.02311, app. B)."""
        head = self.vocabulary_size * self.hidden_size
        matrices = 6 * (self.num_layers * self.block_parameters + head)
        attention = 12 * self.num_layers * self.hidden_size * sequence_length
        return float(num_tokens * (matrices + attention))


@dataclass(frozen=True)
class Work:
    """The computation of each rank in a step, which does not depend on the number of ranks.

    Args:
        num_tokens: Tokens of a rank.
        sequence_length: Tokens of a sequence.
        flops_per_second: Speed reached in training, below the peak.
    """

    num_tokens: int
    sequence_length: int
    flops_per_second: float

    def seconds(self, model: Transformer) -> float:
        """Seconds of forward and backward pass."""
        return model.step_flops(self.num_tokens, self.sequence_length) / self.flops_per_second


def ring_reduce_scatter(num_ranks: int, num_bytes: float, network: Network) -> float:
    """Seconds until each rank has the sum of its part; gathering all parts takes as long.

    Each rank sends ``num_ranks - 1`` messages of a part.
    """
    part = num_bytes / num_ranks
    return (num_ranks - 1) * (network.latency + part / network.bandwidth)


def ring_all_reduce(num_ranks: int, num_bytes: float, network: Network) -> float:
    """Seconds until each rank has the sum: reduce-scatter, then all-gather, around a ring."""
    return 2 * ring_reduce_scatter(num_ranks, num_bytes, network)


def halving_all_reduce(num_ranks: int, num_bytes: float, network: Network) -> float:
    """Seconds until each rank has the sum by recursive halving and doubling.

    Ranks beyond a power of two first send their data to another rank, and at the end receive its sum.
    """
    power = 2 ** int(math.log2(num_ranks))
    messages = 2 * math.log2(power) * network.latency
    seconds = messages + 2 * (power - 1) / power * num_bytes / network.bandwidth
    if power < num_ranks:
        seconds += 2 * (network.latency + num_bytes / network.bandwidth)
    return seconds


def all_reduce(num_ranks: int, num_bytes: float, network: Network) -> float:
    """Seconds of the faster of the two algorithms."""
    return min(way(num_ranks, num_bytes, network) for way in (ring_all_reduce, halving_all_reduce))


def ddp_step(model: Transformer, work: Work, num_ranks: int, network: Network) -> float:
    """Seconds of a step of DDP: buckets of gradients are summed during the backward pass, one at a time."""
    gradients = model.num_parameters * _GRADIENT_BYTES
    num_buckets = math.ceil(gradients / _BUCKET_BYTES)
    bucket = all_reduce(num_ranks, gradients / num_buckets, network)
    forward, backward = _passes(model, work)
    sent = 0.0
    for number in range(1, num_buckets + 1):
        ready = forward + backward * number / num_buckets
        sent = max(sent, ready) + bucket
    return max(sent, forward + backward)


def fsdp_step(model: Transformer, work: Work, num_ranks: int, network: Network) -> float:
    """Seconds of a step of FSDP2.

    Both passes gather each block during the block before. Gradients are scattered during the backward pass.
    Embedding and head are gathered once, before the first block; their gradients are scattered last. All
    communication shares one link.
    """

    def seconds(num_bytes: float) -> float:
        return ring_reduce_scatter(num_ranks, num_bytes, network)

    gather = seconds(model.block_parameters * _GATHERED_BYTES)
    scatter = seconds(model.block_parameters * _GRADIENT_BYTES)
    outer = seconds(model.embedding_parameters * _GRADIENT_BYTES)
    forward, backward = (whole / model.num_layers for whole in _passes(model, work))
    link_free, begun, computed = outer, 0.0, 0.0
    for _ in range(model.num_layers):
        link_free = max(link_free, begun) + gather  # starts when the previous block starts
        begun = max(link_free, computed)
        computed = begun + forward
    begun, has_gradients = computed, False
    for _ in range(model.num_layers):
        link_free = max(link_free, begun) + gather
        begun = max(link_free, computed)
        if has_gradients:  # those of the previous block, sent after the weights of this block
            link_free = max(link_free, computed) + scatter
        computed, has_gradients = begun + backward, True
    return max(link_free, computed) + scatter + outer


def _passes(model: Transformer, work: Work) -> tuple[float, float]:
    forward = work.seconds(model) / (1 + _BACKWARD_TO_FORWARD)
    return forward, _BACKWARD_TO_FORWARD * forward
