"""Families of networks as transformers knows them, and what a network of ours is in their words.

A family reads a ``config.json`` into a network. It writes one from :func:`described`, the facts about a
network under one name each, of which it takes those that it has entries for. That the result says the same is
then proven by reading it back: what the family has no entry for comes back as a difference.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from insight.interchange.config_fields import CHUNKED, FULL, PLAIN_ACTIVATIONS, SLIDING, Fields
from insight.interchange.name_map import NameMap
from insight.models import (
    MLP,
    Alibi,
    BalanceBias,
    DecoderConfig,
    DifferentialAttention,
    DynamicNTKScaling,
    FeedForward,
    FeedForwardPattern,
    GeGLU,
    GroupedQueryAttention,
    LatentAttention,
    LearnedPosition,
    LinearScaling,
    Llama3Scaling,
    LongRopeScaling,
    MixtureOfExperts,
    ParallelResidual,
    QueryTemperature,
    ReluSquared,
    Rope,
    ScaledInitialization,
    SwiGLU,
    YarnScaling,
)
from insight.models.attention import Attention, LayerPattern
from insight.models.feed_forward.dense import default_width
from insight.models.norms import find_query_key_norm
from insight.models.positions.scaling import RopeScaling


@dataclass(frozen=True)
class Family:
    """One architecture of transformers.

    Args:
        model_type: Its name in ``config.json``.
        architecture: The class that runs it.
        read: From the entries of a ``config.json`` to the network.
        names: The names of the weights of a network in the form of :func:`canonical`.
        entries: The entries of ``config.json`` that are written, each the name of a fact of
            :func:`described` or ``entry=fact``.
        constants: Entries with the same value in every file.
    """

    model_type: str
    architecture: str
    read: Callable[[Fields], DecoderConfig]
    names: Callable[[DecoderConfig], NameMap]
    entries: str
    constants: Mapping[str, Any] = field(default_factory=dict)

    def write(self, config: DecoderConfig, vocabulary_size: int) -> dict[str, Any]:
        """The ``config.json`` that comes nearest to a network in the form of :func:`canonical`."""
        facts = described(config, vocabulary_size)
        pairs = (entry.split("=") for entry in self.entries.split())
        values = {pair[0]: facts[pair[-1]] for pair in pairs if pair[-1] in facts}
        head = {"architectures": [self.architecture], "model_type": self.model_type}
        return {**head, **values, **self.constants}


def canonical(config: DecoderConfig) -> DecoderConfig:
    """A network with every default written out and one attention and feed-forward a layer.

    What changes no result of a trained network is left at its default: dropout, first values, kernels, and
    how training spreads tokens over experts.
    """
    size, count = config.hidden_size, config.num_layers
    attentions = tuple(_attention(_of_layer(config.attention, layer), size) for layer in range(count))
    forwards = tuple(_feed_forward(_layer_of(config.feed_forward, layer), size) for layer in range(count))
    learned = isinstance(config.input_position, LearnedPosition)
    return replace(
        config,
        attention=LayerPattern(attentions),
        feed_forward=FeedForwardPattern(forwards),
        dropout=0.0,
        initialization=ScaledInitialization(),
        input_position=LearnedPosition() if learned else config.input_position,
        embedding_scale=None if config.embedding_scale == 1.0 else config.embedding_scale,
        output_scale=None if config.output_scale == 1.0 else config.output_scale,
        activation_checkpointing=None,
    )


def _of_layer(attention: Attention, layer: int) -> Attention:
    while isinstance(attention, LayerPattern):
        attention = attention.layers[layer % len(attention.layers)]
    return attention


def _layer_of(feed_forward: FeedForward, layer: int) -> FeedForward:
    while isinstance(feed_forward, FeedForwardPattern):
        place = layer - len(feed_forward.first)
        repeated = feed_forward.layers
        feed_forward = feed_forward.first[layer] if place < 0 else repeated[place % len(repeated)]
    return feed_forward


def _attention(attention: Attention, hidden_size: int) -> Attention:
    if isinstance(attention, LatentAttention):
        scale = attention.score_scale or (attention.head_dim + attention.rotary_dim) ** -0.5
        return replace(attention, kernel="auto", dropout=0.0, score_scale=scale)
    if not isinstance(attention, GroupedQueryAttention):
        return attention
    head_dim = attention.head_size(hidden_size)
    changed: dict[str, Any] = {"weight_std": 0.1} if isinstance(attention, DifferentialAttention) else {}
    return replace(
        attention,
        num_key_value_heads=attention.num_key_value_heads or attention.num_heads,
        head_dim=head_dim,
        qk_norm=find_query_key_norm(attention.qk_norm) or "none",
        kernel="auto",
        score_scale=attention.score_scale or head_dim**-0.5,
        dropout=0.0,
        **changed,
    )


def _feed_forward(layer: FeedForward, hidden_size: int) -> FeedForward:
    if isinstance(layer, ReluSquared):
        layer = MLP(layer.intermediate_size, "relu_squared")
    if isinstance(layer, MLP):
        return replace(layer, intermediate_size=layer.intermediate_size or 4 * hidden_size)
    if isinstance(layer, (SwiGLU, GeGLU)):
        return replace(layer, intermediate_size=layer.intermediate_size or default_width(hidden_size))
    if isinstance(layer, MixtureOfExperts):
        balance = BalanceBias() if layer.balance is not None and layer.balance.moves_bias else None
        return replace(layer, intermediate_size=layer.width(hidden_size), balance=balance)
    return layer


def kind_of(attention: Attention) -> str:
    """The name of transformers for what a layer sees."""
    if getattr(attention, "chunk_size", None) is not None:
        return CHUNKED
    return FULL if getattr(attention, "window", None) is None else SLIDING


def described(config: DecoderConfig, vocabulary_size: int) -> dict[str, Any]:
    """The facts about a network in the form of :func:`canonical`, under the names of transformers' Llama.

    A fact that a network does not have is missing.
    """
    attentions: Any = config.attention.layers  # type: ignore[attr-defined]
    forwards: Any = config.feed_forward.layers  # type: ignore[attr-defined]
    first, block = attentions[0], config.block
    facts: dict[str, Any] = {
        "vocab_size": vocabulary_size,
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.num_layers,
        "max_position_embeddings": config.max_sequence_length,
        "tie_word_embeddings": config.tie_embeddings,
        "num_attention_heads": getattr(first, "num_heads", None),
        "layer_types": [kind_of(each) for each in attentions],
        "residual_multiplier": block.branch_scale,
        "embedding_multiplier": config.embedding_scale or 1.0,
        "logit_scale": config.output_scale or 1.0,
        "logits_scaling": 1 / (config.output_scale or 1.0),
        "final_logit_softcapping": config.logit_soft_cap,
        "is_parallel": isinstance(block, ParallelResidual),
        "has_two_norms": isinstance(block, ParallelResidual) and not block.shared_norm,
        "eps": getattr(config.norm, "eps", None),
    }
    for name in ("window", "chunk_size"):
        found = [value for each in attentions if (value := getattr(each, name, None)) is not None]
        facts["sliding_window" if name == "window" else "attention_chunk_size"] = found[0] if found else None
    facts["use_sliding_window"] = facts["sliding_window"] is not None
    kinds = facts["layer_types"]
    facts["max_window_layers"] = kinds.index(SLIDING) if SLIDING in kinds else len(kinds)
    if isinstance(first, GroupedQueryAttention):
        facts |= {
            "num_key_value_heads": first.num_key_value_heads,
            "head_dim": first.head_dim,
            "attention_bias": first.qkv_bias,
            "has_output_bias": first.output_bias,
            "attention_multiplier": first.score_scale,
            "query_pre_attn_scalar": round(float(first.score_scale or 1.0) ** -2, 9),
            "attn_logit_softcapping": first.score_soft_cap,
            "has_qk_norm": first.qk_norm != "none",
            "is_alibi": isinstance(first.position, Alibi),
            "is_multi_query": first.num_key_value_heads == 1,
        }
    elif isinstance(first, LatentAttention):
        facts |= {
            "num_key_value_heads": first.num_heads,
            "kv_lora_rank": first.latent_size,
            "q_lora_rank": first.query_latent_size,
            "qk_rope_head_dim": first.rotary_dim,
            "qk_nope_head_dim": first.head_dim,
            "v_head_dim": first.value_dim,
        }
    return facts | _positions(attentions) | _feed_forwards(forwards)


def _positions(attentions: Any) -> dict[str, Any]:
    """The facts about positions: of the rotating layers that see everything, else of any."""
    rotating = [each for each in attentions if isinstance(getattr(each, "position", None), Rope)]
    facts: dict[str, Any] = {"no_rope_layers": [int(each in rotating) for each in attentions]}
    for each in attentions:
        if isinstance(getattr(each, "position", None), QueryTemperature):
            facts |= {"floor_scale": each.position.step, "attn_scale": each.position.growth}
    if not rotating:
        return facts
    of_kind = {kind_of(each): each for each in reversed(rotating)}
    chosen = of_kind.get(FULL, rotating[0])
    position, scaling = chosen.position, _scaling(chosen)
    rotation = {"rope_theta": position.base, "rope_type": "default"} | scaling
    if position.rotated_share != 1.0:
        rotation["partial_rotary_factor"] = facts["partial_rotary_factor"] = position.rotated_share
    facts |= {"rope_theta": position.base, "rope_parameters": rotation, "rotary_pct": position.rotated_share}
    if scaling:
        facts |= {"rope_scaling": scaling}
        original = scaling.get("original_max_position_embeddings")
        facts |= {"original_max_position_embeddings": original} if original else {}
    if isinstance(chosen, GroupedQueryAttention) and chosen.head_dim:
        facts["rotary_dim"] = int(chosen.head_dim * position.rotated_share)
    local = of_kind.get(SLIDING)
    if local is not None:
        facts["local_rope_theta"] = local.position.base
    bases = {FULL: rotation, SLIDING: {"rope_theta": facts.get("local_rope_theta", position.base)}}
    facts["rope_parameters_by_kind"] = {
        kind: {"rope_type": "default"} | values for kind, values in bases.items()
    }
    return facts


def _scaling(attention: Any) -> dict[str, Any]:
    scaling: RopeScaling | None = attention.position.scaling
    original = {"original_max_position_embeddings": getattr(scaling, "original_length", None)}
    match scaling:
        case LinearScaling():
            return {"rope_type": "linear", "factor": float(scaling.factor)}
        case DynamicNTKScaling():
            return {"rope_type": "dynamic", "factor": float(scaling.factor)}
        case Llama3Scaling():
            ends = {"low_freq_factor": scaling.low_frequency_factor}
            ends |= {"high_freq_factor": scaling.high_frequency_factor}
            return {"rope_type": "llama3", "factor": float(scaling.factor), **ends, **original}
        case LongRopeScaling():
            factors = {"short_factor": scaling.short_factors, "long_factor": scaling.long_factors}
            values = {name: list(numbers) for name, numbers in factors.items()} | original
            return {"rope_type": "longrope", "factor": float(scaling.factor), **values} | _amplitude(scaling)
        case YarnScaling():
            betas = {"beta_fast": float(scaling.beta_fast), "beta_slow": float(scaling.beta_slow)}
            values = {"rope_type": "yarn", "factor": float(scaling.factor), **betas, **original}
            values |= {} if scaling.truncate else {"truncate": False}
            is_latent = isinstance(attention, LatentAttention) and scaling.factor > 1
            return values | (_mscales(attention, scaling) if is_latent else _amplitude(scaling))
    return {}


def _amplitude(scaling: YarnScaling | LongRopeScaling) -> dict[str, float]:
    return {} if scaling.attention_factor is None else {"attention_factor": float(scaling.attention_factor)}


def _mscales(attention: LatentAttention, scaling: YarnScaling) -> dict[str, float]:
    """DeepSeek's two terms: the square of one multiplies the scores, their ratio rotated channels."""
    plain = (attention.head_dim + attention.rotary_dim) ** -0.5
    root = math.sqrt(float(attention.score_scale or plain) / plain)
    terms = {"mscale": scaling.amplitude * root, "mscale_all_dim": root}
    return {name: round((term - 1) / (0.1 * math.log(scaling.factor)), 9) for name, term in terms.items()}


def _feed_forwards(forwards: Any) -> dict[str, Any]:
    mixture = next((each for each in forwards if isinstance(each, MixtureOfExperts)), None)
    dense = next((each for each in forwards if not isinstance(each, MixtureOfExperts)), None)
    facts: dict[str, Any] = {}
    if isinstance(dense, (SwiGLU, GeGLU, MLP)):
        names = {ours: theirs for theirs, ours in reversed(PLAIN_ACTIVATIONS.items())}
        gated = "silu" if isinstance(dense, SwiGLU) else "gelu_pytorch_tanh"
        is_plain = isinstance(dense, MLP)
        facts |= {
            "intermediate_size": dense.intermediate_size,
            "mlp_bias": dense.bias,
            "hidden_act": names[dense.activation] if isinstance(dense, MLP) else gated,
            "is_plain": is_plain,
        }
    if mixture is not None:
        facts |= {
            "num_experts": mixture.num_experts,
            "num_experts_per_tok": mixture.num_experts_per_token,
            "moe_intermediate_size": mixture.intermediate_size,
            "num_shared_experts": mixture.num_shared_experts,
            "shared_intermediate_size": mixture.num_shared_experts * (mixture.intermediate_size or 0),
            "norm_topk_prob": mixture.normalized_weights,
            "routed_scaling_factor": mixture.weight_scale,
            "n_group": mixture.num_groups,
            "topk_group": mixture.num_groups_per_token,
            "num_dense_layers": sum(not isinstance(each, MixtureOfExperts) for each in forwards),
        }
    return facts
