"""``insight model estimate``: what a network takes to train and to use."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from insight.cli.network_choice import add_network, chosen_network
from insight.runtime.errors import ConfigError

if TYPE_CHECKING:
    import torch

    from insight.models.estimate import NetworkConfig
    from insight.training import OptimizerConfig

_LONGEST_BY_DEFAULT = 4096
_PRECISIONS = ("32-true", "bf16-mixed", "bf16-true")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the action."""
    add_network(parser)
    parser.add_argument(
        "--vocabulary_size", type=int, metavar="N", help="tokens (default: the preset's or the tokenizer's)"
    )
    parser.add_argument(
        "--batch_size", type=int, metavar="N", help="sequences a batch (default: the configuration's, or 1)"
    )
    parser.add_argument(
        "--sequence_length",
        type=int,
        metavar="N",
        help=f"tokens of each (default: the configuration's, or the context up to {_LONGEST_BY_DEFAULT:,})",
    )
    parser.add_argument(
        "--precision", choices=_PRECISIONS, help="of training (default: the configuration's, or 32-true)"
    )
    parser.add_argument(
        "--optimizer", choices=("adamw", "muon"), help="(default: the configuration's, or adamw)"
    )
    parser.add_argument("--json", action="store_true", help="print the numbers as JSON")
    parser.set_defaults(action=_estimate)


def _estimate(options: argparse.Namespace) -> int:
    chosen = chosen_network(options)

    from insight.models.estimate import decoder_of
    from insight.training import AdamW, MuonAdamW

    named: dict[str, OptimizerConfig] = {"adamw": AdamW(), "muon": MuonAdamW()}
    vocabulary_size = _first(options.vocabulary_size, chosen.vocabulary_size)
    if vocabulary_size is None:
        raise ConfigError("the number of tokens is not known without the data", "give --vocabulary_size")
    length = min(decoder_of(chosen.config).max_sequence_length, _LONGEST_BY_DEFAULT)
    precision = options.precision or (chosen.precision if chosen.precision in _PRECISIONS else "32-true")
    estimate = estimate_network(
        chosen.config,
        vocabulary_size,
        _first(options.batch_size, chosen.batch_size, 1),
        _first(options.sequence_length, chosen.sequence_length, length),
        precision,
        named.get(options.optimizer) or chosen.optimizer or named["adamw"],
    )
    if options.json:
        print(json.dumps(estimate))
    else:
        print(f"{chosen.title}\n{_text(estimate)}")
    return 0


def _first(*values: Any) -> Any:
    """The first that is given; 0 is given."""
    return next((value for value in values if value is not None), None)


def estimate_network(
    config: NetworkConfig,
    vocabulary_size: int,
    batch_size: int,
    sequence_length: int,
    precision: str,
    optimizer: OptimizerConfig,
) -> dict[str, Any]:
    """The numbers of ``insight model estimate --json``.

    Args:
        config: Of the network.
        vocabulary_size: Tokens.
        batch_size: Sequences a batch.
        sequence_length: Tokens of each.
        precision: ``32-true``, ``bf16-mixed`` (float32 weights) or ``bf16-true``; ``16-mixed`` and
            ``16-true`` have the same sizes.
        optimizer: Whose states are counted.

    Raises:
        ConfigError: A number is below 1 or above the context, or the memory depends on the text.
    """
    import torch

    from insight.models.estimate import build_without_memory, decoder_of, network_size, training_memory
    from insight.training.losses import loss_memory
    from insight.training.optimizers import parameter_groups

    decoder = decoder_of(config)
    if sequence_length > decoder.max_sequence_length:
        raise ConfigError(
            f"sequence_length={sequence_length} exceeds max_sequence_length={decoder.max_sequence_length}",
            "estimate a shorter sequence, or a network with a longer context",
        )
    dtype = torch.bfloat16 if precision.endswith("16-true") else torch.float32
    products = torch.float32 if precision == "32-true" else torch.bfloat16
    size = network_size(config, vocabulary_size, sequence_length, dtype)
    memory = training_memory(
        config,
        vocabulary_size,
        batch_size,
        sequence_length,
        dtype,
        products if precision.endswith("16-mixed") else None,
    )
    groups = parameter_groups(build_without_memory(config, vocabulary_size))
    numbers = {group.role: sum(p.numel() for p in group.parameters.values()) for group in groups}
    weights = size.num_parameters * dtype.itemsize
    states = sum(count * optimizer.numbers_kept(role) for role, count in numbers.items()) * dtype.itemsize
    loss = loss_memory(batch_size * sequence_length, decoder.hidden_size, vocabulary_size, products, dtype)
    head_gradient = decoder.hidden_size * vocabulary_size * dtype.itemsize
    in_loss = memory.activations + loss.kept + max(loss.logits + loss.casts, loss.scaled)
    in_backward = memory.peak + head_gradient
    return {
        "num_parameters": size.num_parameters,
        "num_active_parameters": size.num_active_parameters,
        "flops_per_token_forward": size.flops_per_token,
        "flops_per_token_training": 3 * size.flops_per_token,
        "vocabulary_size": vocabulary_size,
        "batch_size": batch_size,
        "sequence_length": sequence_length,
        "precision": precision,
        "optimizer": type(optimizer).__name__,
        "weight_bytes": weights,
        "gradient_bytes": weights,
        "optimizer_bytes": states,
        "activation_bytes": memory.activations,
        "peak_activation_bytes": memory.peak_activations,
        "logits_bytes": loss.logits,
        "peak_bytes": weights + states + max(in_loss, in_backward),
        **_cache(size.cache, sequence_length, dtype),
    }


def _cache(layers: Any, sequence_length: int, dtype: torch.dtype) -> dict[str, Any]:
    if layers is None:
        return {"cache_layers": None}
    per_token, fixed = (sum(getattr(layer, name) for layer in layers) for name in ("per_token", "fixed"))
    return {
        "cache_dtype": str(dtype).removeprefix("torch."),
        "cache_bytes_per_token": per_token,
        "cache_fixed_bytes": fixed,
        "cache_bytes": fixed + per_token * sequence_length,
        "cache_layers": [{"fixed": layer.fixed, "per_token": layer.per_token} for layer in layers],
    }


def _text(estimate: dict[str, Any]) -> str:
    from insight.runtime.formats import format_bytes, format_count

    def size(name: str) -> str:
        return format_bytes(estimate[name])

    active = estimate["num_active_parameters"]
    some = f", of which a token uses {active:,}" if active != estimate["num_parameters"] else ""
    tokens = f"{estimate['batch_size']:,} x {estimate['sequence_length']:,} tokens"
    lines = [
        ("parameters", f"{estimate['num_parameters']:,}{some}"),
        (
            "FLOPs a token",
            f"{format_count(estimate['flops_per_token_forward'])} forward, "
            f"{format_count(estimate['flops_per_token_training'])} in training",
        ),
        ("training", f"{tokens}, {estimate['precision']}, {estimate['optimizer']}, not compiled"),
        ("  weights", size("weight_bytes")),
        ("  gradients", size("gradient_bytes")),
        ("  optimizer", size("optimizer_bytes")),
        (
            "  activations",
            f"{size('activation_bytes')} kept for the backward pass, {size('peak_activation_bytes')} at most",
        ),
        ("  logits", f"{size('logits_bytes')}, a part at a time"),
        ("  peak", f"{size('peak_bytes')} in all"),
    ]
    if estimate["cache_layers"] is None:
        lines.append(("cache", "none of this length: later tokens would change earlier keys"))
    else:
        fixed = size("cache_fixed_bytes") if estimate["cache_fixed_bytes"] else "nothing"
        lines.append(
            (
                "cache",
                f"{size('cache_bytes_per_token')} a token and {fixed} whatever the length, "
                f"{size('cache_bytes')} a sequence in {estimate['cache_dtype']}",
            )
        )
    width = max(len(name) for name, _ in lines)
    return "\n".join(f"{name:{width}}  {value}" for name, value in lines)
