"""One variant of attention: its time against another variant, its memory, the cost of a decoded token."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch

from benchmarks.peers.measured import peak_resident_bytes
from benchmarks.peers.protocol import print_result
from insight import models
from insight.models import (
    Alibi,
    Attention,
    AttentionModule,
    CallContext,
    CausalMask,
    Decoder,
    DecoderConfig,
    DifferentialAttention,
    DocumentMask,
    GroupedQueryAttention,
    LatentAttention,
    Mask,
    RelativeBias,
)
from insight.models.attention import causal_mask
from insight.runtime.hardware import flush_denormals
from insight.runtime.resources import resident_bytes

HIDDEN, HEADS, WINDOW, DOCUMENT = 256, 4, 256, 512
_EARLY, _LATE, _STEPS = 10, 1000, 12

VARIANTS: dict[str, Callable[[], Attention]] = {
    "multi-head": lambda: GroupedQueryAttention(HEADS, kernel="sdpa"),
    "dense documents": lambda: GroupedQueryAttention(HEADS, kernel="sdpa"),
    "packed documents": lambda: GroupedQueryAttention(HEADS),
    "grouped-query": lambda: GroupedQueryAttention(HEADS, 2),
    "multi-query": lambda: GroupedQueryAttention(HEADS, 1),
    "sliding window": lambda: GroupedQueryAttention(HEADS, window=WINDOW),
    "differential": lambda: DifferentialAttention(HEADS),
    "ALiBi": lambda: GroupedQueryAttention(HEADS, position=Alibi()),
    "relative bias": lambda: GroupedQueryAttention(HEADS, position=RelativeBias()),
    "soft cap": lambda: GroupedQueryAttention(HEADS, score_soft_cap=50.0),
    "sinks": lambda: GroupedQueryAttention(HEADS, sinks=True),
    "gate and query-key norm": lambda: GroupedQueryAttention(HEADS, qk_norm="rms", output_gate=True),
    "latent": lambda: LatentAttention(HEADS, latent_size=64, head_dim=48, rotary_dim=16, value_dim=64),
    "gated delta net": lambda: _mixer("GatedDeltaNet"),
    "gated linear": lambda: _mixer("GatedLinearAttention"),
    "retention": lambda: _mixer("Retention"),
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=("layer", "attention", "memory", "decode"))
    parser.add_argument("--variant", choices=VARIANTS, required=True)
    parser.add_argument("--base", choices=VARIANTS, default="multi-head", help="what a pair is compared with")
    parser.add_argument("--length", type=int, default=4096, help="tokens of the sequence")
    parser.add_argument("--seconds", type=float, default=8.0, help="of measuring")
    arguments = parser.parse_args()
    flush_denormals()  # as `insight fit` does
    torch.manual_seed(0)
    if arguments.task == "memory":
        result = _memory(arguments.variant, arguments.length)
    elif arguments.task == "decode":
        result = _decode(arguments.variant, arguments.seconds)
    else:
        make_step = _layer_step if arguments.task == "layer" else _attention_step
        steps = {name: make_step(name, arguments.length) for name in (arguments.base, arguments.variant)}
        result = _pair(steps, arguments.seconds)
    print_result({**result, "num_threads": torch.get_num_threads(), "torch": torch.__version__})


def _pair(steps: dict[str, Callable[[], None]], seconds: float) -> dict[str, Any]:
    """Alternate both steps (A B, B A); the ratio is the median of the ratios of the second to the first."""
    base, variant = steps
    durations: dict[str, list[float]] = {name: [] for name in steps}
    for name in (*steps, *steps):
        steps[name]()  # warms up threads and allocator
    end = time.perf_counter() + seconds
    order = list(steps)
    while time.perf_counter() < end or len(durations[variant]) < 3:
        for name in order:
            durations[name].append(_timed(steps[name]))
        order.reverse()
    ratios = [own / other for own, other in zip(durations[variant], durations[base], strict=True)]
    return {
        "seconds": statistics.median(durations[variant]),
        "base_seconds": statistics.median(durations[base]),
        "ratio": statistics.median(ratios),
        "num_pairs": len(ratios),
    }


def _memory(variant: str, length: int) -> dict[str, Any]:
    """Peak growth of the process during forward and backward pass."""
    _layer_step(variant, 128)()
    step = _layer_step(variant, length)
    before = resident_bytes()
    step()
    return {"peak_growth_bytes": peak_resident_bytes() - before, "square_bytes": 4 * length**2}


def _decode(variant: str, seconds: float) -> dict[str, Any]:
    """Steps of one token early and late in a sequence, alternating, with the network's cache."""
    network = DecoderConfig(
        hidden_size=HIDDEN, num_layers=4, attention=VARIANTS[variant](), max_sequence_length=4096
    ).build(4096)
    network.requires_grad_(False).eval()
    durations: dict[int, list[float]] = {_EARLY: [], _LATE: []}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(durations[_LATE]) < 2 * _STEPS:
        early, late = (_decoding(network, start) for start in (_EARLY, _LATE))
        for number in range(_STEPS):
            pair = [(_EARLY, early), (_LATE, late)]
            for start, steps in reversed(pair) if number % 2 else pair:
                durations[start].append(_timed(lambda steps=steps: next(steps)))  # type: ignore[misc]
    ratios = [late / early for early, late in zip(durations[_EARLY], durations[_LATE], strict=True)]
    return {
        "early_seconds": statistics.median(durations[_EARLY]),
        "late_seconds": statistics.median(durations[_LATE]),
        "ratio": statistics.median(ratios),
        "num_pairs": len(ratios),
    }


def _layer_step(name: str, length: int) -> Callable[[], None]:
    """Forward and backward pass of one attention layer, batch 1."""
    layer, mask = _layer(name), _mask(name, length)
    tables = layer.position.tables(torch.arange(length))
    hidden = torch.randn(1, length, HIDDEN, requires_grad=True)
    gradient = torch.randn(1, length, HIDDEN)

    def step() -> None:
        layer(hidden, CallContext(mask, tables)).backward(gradient)
        layer.zero_grad(set_to_none=True)
        hidden.grad = None

    return step


def _attention_step(name: str, length: int) -> Callable[[], None]:
    """Forward and backward pass of attention alone, without the projections."""
    layer: Any = _layer(name)
    mask = _mask(name, length).within(layer.window)
    with torch.no_grad():
        heads = layer.project(torch.randn(1, length, HIDDEN), layer.position.tables(torch.arange(length)))
    heads = tuple(tensor.requires_grad_() for tensor in heads)
    gradient = torch.randn_like(layer.mix(*heads, mask))

    def step() -> None:
        layer.mix(*heads, mask).backward(gradient)
        layer.zero_grad(set_to_none=True)
        for tensor in heads:
            tensor.grad = None

    return step


def _layer(name: str) -> AttentionModule:
    return VARIANTS[name]().build(HIDDEN, lambda position, *sizes: position.build(*sizes))


def _mask(name: str, length: int) -> Mask:
    ids = torch.arange(length).div(DOCUMENT, rounding_mode="floor").unsqueeze(0)
    if name == "packed documents":
        return causal_mask(ids)
    # A mask without lengths is built in full.
    return DocumentMask(ids) if name == "dense documents" else CausalMask()


@torch.no_grad()
def _decoding(network: Decoder, start: int) -> Iterator[None]:
    cache = network.make_cache(1)
    ids = torch.randint(0, network.vocabulary_size, (1, start + _STEPS + 1))
    network(ids[:, : start - 1], cache=cache)
    network(ids[:, start - 1 : start], cache=cache)  # the first step's allocations are not measured
    return _steps(network, ids, cache, start)


def _steps(network: Decoder, ids: torch.Tensor, cache: Any, start: int) -> Iterator[None]:
    for position in range(start, ids.shape[1]):
        with torch.no_grad():
            network.logits(network(ids[:, position : position + 1], cache=cache))
        yield


def _timed(step: Callable[[], object]) -> float:
    begin = time.perf_counter()
    step()
    return time.perf_counter() - begin


def _mixer(name: str) -> Attention:
    mixer: Attention = getattr(models, name)(num_heads=HEADS)
    return mixer


if __name__ == "__main__":
    main()
