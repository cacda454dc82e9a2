"""Small networks of transformers and the presets that must equal them, shrunk to the same sizes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from insight.interchange.gpt import (
    GPT2,
    GPTJ,
    MPT,
    NEMOTRON,
    PHI,
    STARCODER2,
    bloom_names,
    falcon_names,
    gpt_neox_names,
)
from insight.interchange.llama import (
    DIFFLLAMA,
    GEMMA,
    GLM4,
    GPT_OSS,
    LLAMA,
    LLAMA4,
    MIXTRAL,
    OLMO2,
    PHI3,
    QWEN_MOE,
    deepseek_v3_names,
    stablelm_names,
)
from insight.interchange.name_map import NameMap, both
from insight.models import (
    MLP,
    PRESETS,
    Alibi,
    Attention,
    Decoder,
    DecoderConfig,
    FeedForward,
    FeedForwardPattern,
    GroupedQueryAttention,
    InterleavedRope,
    LatentAttention,
    LayerPattern,
    Llama3Scaling,
    LongRopeScaling,
    MixtureOfExperts,
    ParallelResidual,
    PreNorm,
    Preset,
    QueryTemperature,
    Rope,
    SwiGLU,
    YarnScaling,
)

VOCABULARY, HIDDEN, LAYERS, INTERMEDIATE, CONTEXT, HEADS = 61, 48, 3, 80, 64, 4
WINDOW = 9
EXPERTS, EXPERT_SIZE = 8, 24

_SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": HIDDEN,
    "num_hidden_layers": LAYERS,
    "intermediate_size": INTERMEDIATE,
    "num_attention_heads": HEADS,
    "max_position_embeddings": CONTEXT,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def _rope(base: float, **more: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": "default", "rope_theta": base} | more}


@dataclass(frozen=True)
class Architecture:
    """One pair of networks.

    Args:
        family: Theirs: what their configuration is called.
        preset: Ours.
        names: From their tensors to ours.
        theirs: Arguments of their configuration.
        attention: What of our attention changes beside the sizes.
        experts: What of our mixture of experts changes beside the sizes.
        ours: What of our configuration changes beside the sizes.
        num_layers: Blocks, enough for every kind of layer.
        eager: Whether theirs runs its plain form of attention.
        change: What must be changed in theirs to make it the published network.
        without_gradient: Ends of names of our parameters that have no gradient.
    """

    family: str
    preset: Preset
    names: NameMap
    theirs: dict[str, Any]
    attention: dict[str, Any] = field(default_factory=dict)
    experts: dict[str, Any] = field(default_factory=dict)
    ours: dict[str, Any] = field(default_factory=dict)
    num_layers: int = LAYERS
    eager: bool = True
    change: Callable[[Any], None] = lambda theirs: None
    without_gradient: tuple[str, ...] = ()

    def build(self) -> tuple[Any, Decoder]:
        """Their network with random weights, and ours with the same."""
        import transformers

        torch.manual_seed(0)
        kind = f"{self.family}Text" if self.family in ("Gemma3", "Llama4") else self.family
        attention = "eager" if self.eager else "sdpa"
        config = getattr(transformers, f"{kind}Config")(attn_implementation=attention, **self.theirs)
        theirs = transformers.AutoModelForCausalLM.from_config(config).eval()
        self.change(theirs)
        with torch.no_grad():
            for parameter in theirs.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))  # norms too: ones would hide a mix-up
            for name, buffer in theirs.named_buffers():
                if name.endswith("e_score_correction_bias"):
                    buffer.add_(0.1 * torch.randn_like(buffer))
        ours = self.config().build(VOCABULARY)
        ours.load_state_dict(self.convert(theirs.state_dict()))
        return theirs, ours.eval()

    def config(self) -> DecoderConfig:
        """The preset in the sizes of this file."""
        preset = self.preset.config
        sizes = {
            "hidden_size": HIDDEN,
            "num_layers": self.num_layers,
            "max_sequence_length": CONTEXT,
            "attention": self._shrink(preset.attention),
            "feed_forward": self._shrink_feed_forward(preset.feed_forward),
        }
        return replace(preset, **(sizes | self.ours))

    def convert(self, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Their tensors under our names, a tied head once."""
        tied = self.preset.config.tie_embeddings
        return self.names.convert(
            {name: x for name, x in tensors.items() if not (tied and name == "lm_head.weight")},
            self.num_layers,
        )

    def _shrink(self, attention: Attention) -> Attention:
        if isinstance(attention, LayerPattern):
            return LayerPattern(tuple(self._shrink(each) for each in attention.layers))
        if isinstance(attention, LatentAttention):
            return replace(attention, num_heads=HEADS, **self.attention)
        assert isinstance(attention, GroupedQueryAttention)
        sizes = {
            "num_heads": HEADS,
            "num_key_value_heads": attention.num_key_value_heads and min(2, attention.num_key_value_heads),
            "window": attention.window and WINDOW,
            "chunk_size": attention.chunk_size and WINDOW,
        }
        return replace(attention, **(sizes | self.attention))

    def _shrink_feed_forward(self, feed_forward: FeedForward) -> FeedForward:
        if isinstance(feed_forward, FeedForwardPattern):
            return FeedForwardPattern(
                layers=tuple(self._shrink_feed_forward(each) for each in feed_forward.layers),
                first=tuple(self._shrink_feed_forward(each) for each in feed_forward.first[:1]),
            )
        changes: Any = {"intermediate_size": INTERMEDIATE}
        if isinstance(feed_forward, MixtureOfExperts):
            changes = {"num_experts": EXPERTS, "intermediate_size": EXPERT_SIZE} | self.experts
        return replace(feed_forward, **changes)


_LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}

_YARN = {
    "rope_type": "yarn",
    "factor": 4.0,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "original_max_position_embeddings": 32,
}
SHORT_FACTORS, LONG_FACTORS = (1.0, 1.1, 1.2, 1.4, 1.7, 2.0), (1.0, 1.3, 2.5, 4.0, 6.5, 8.0)
_LONGROPE = {
    "rope_type": "longrope",
    "short_factor": list(SHORT_FACTORS),
    "long_factor": list(LONG_FACTORS),
    "original_max_position_embeddings": 16,
}
_LATENT = {
    "num_key_value_heads": HEADS,
    "kv_lora_rank": 24,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 12,
    "v_head_dim": 10,
    "n_routed_experts": EXPERTS,
    "moe_intermediate_size": EXPERT_SIZE,
    "first_k_dense_replace": 1,
}
_OUR_LATENT = {"latent_size": 24, "head_dim": 12, "rotary_dim": 8, "value_dim": 10}


def _small_llama4() -> Attention:
    pattern = PRESETS["llama-4-scout"].config.attention
    sizes: Any = {"num_heads": HEADS, "num_key_value_heads": 2, "head_dim": 12}
    local = replace(
        pattern.layers[0],
        chunk_size=WINDOW,
        position=InterleavedRope(500000.0, scaling=Llama3Scaling(16.0, 1.0, 1.0, 32)),
        **sizes,
    )
    return LayerPattern((*3 * (local,), replace(pattern.layers[3], position=QueryTemperature(8), **sizes)))


_OLMO3_YARN = _YARN | {"factor": 8.0, "attention_factor": 1.2079441541679836}


def _small_olmo3() -> Attention:
    pattern = PRESETS["olmo-3-7b"].config.attention
    local, scaled = (replace(pattern.layers[layer], num_heads=HEADS) for layer in (0, 3))
    scaling = replace(scaled.position.scaling, original_length=32)
    scaled = replace(scaled, position=replace(scaled.position, scaling=scaling))
    return LayerPattern((*3 * (replace(local, window=WINDOW),), scaled))


def _rotate_local_layers_plainly(theirs: Any) -> None:
    """Theirs has one table of angles; the published model scales those of its global layers alone."""
    plain = copy.deepcopy(theirs.config)
    plain.rope_parameters = _rope(500000.0)["rope_parameters"]
    rotation = type(theirs.model.rotary_emb)(plain)

    def take_plain_tables(_: Any, args: Any, given: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        tables = rotation(given["hidden_states"], given["position_ids"])
        return args, given | {"position_embeddings": tables}

    for layer, kind in zip(theirs.model.layers, theirs.config.layer_types, strict=True):
        if kind == "sliding_attention":
            layer.self_attn.register_forward_pre_hook(take_plain_tables, with_kwargs=True)


ARCHITECTURES: dict[str, Callable[[], Architecture]] = {
    "gpt2": lambda: Architecture(
        "GPT2",
        PRESETS["gpt2"],
        GPT2,
        {
            "vocab_size": VOCABULARY,
            "n_positions": CONTEXT,
            "n_embd": HIDDEN,
            "n_layer": LAYERS,
            "n_head": HEADS,
            "n_inner": INTERMEDIATE,
            "bos_token_id": 1,
            "eos_token_id": 2,
        },
    ),
    "llama2": lambda: Architecture(
        "Llama", PRESETS["llama-2-7b"], LLAMA, _SIZES | {"rms_norm_eps": 1e-5} | _rope(10000.0)
    ),
    "llama3.1": lambda: Architecture(
        "Llama",
        PRESETS["llama-3.1-8b"],
        LLAMA,
        _SIZES | {"rms_norm_eps": 1e-5, "num_key_value_heads": 2} | _rope(500000.0, **_LLAMA3),
        attention={"position": Rope(500000.0, scaling=Llama3Scaling(original_length=32))},
    ),
    "smollm2": lambda: Architecture(
        "Llama",
        PRESETS["smollm-2-135m"],
        LLAMA,
        _SIZES
        | {"rms_norm_eps": 1e-5, "num_key_value_heads": 2, "tie_word_embeddings": True}
        | _rope(100000.0),
    ),
    "mistral": lambda: Architecture(
        "Mistral",
        PRESETS["mistral-7b"],
        LLAMA,
        _SIZES | {"rms_norm_eps": 1e-5, "num_key_value_heads": 2, "sliding_window": WINDOW} | _rope(10000.0),
    ),
    "gemma2": lambda: Architecture(
        "Gemma2",
        PRESETS["gemma-2-2b"],
        GEMMA,
        _SIZES
        | {"num_key_value_heads": 2, "head_dim": 16, "query_pre_attn_scalar": 24, "sliding_window": WINDOW}
        | {"attn_logit_softcapping": 5.0, "final_logit_softcapping": 6.0}
        | _rope(10000.0),
        attention={"head_dim": 16, "score_scale": 24**-0.5, "score_soft_cap": 5.0},
        ours={"embedding_scale": HIDDEN**0.5, "logit_soft_cap": 6.0},
    ),
    "gemma3": lambda: Architecture(
        "Gemma3",
        PRESETS["gemma-3-1b"],
        GEMMA,
        _SIZES
        | {"num_hidden_layers": 7, "num_key_value_heads": 1, "head_dim": 16, "query_pre_attn_scalar": 24}
        | {"sliding_window": WINDOW, "tie_word_embeddings": True}
        | {
            "rope_parameters": {
                "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
                "full_attention": {"rope_type": "default", "rope_theta": 1000000.0},
            }
        },
        attention={"head_dim": 16, "score_scale": 24**-0.5},
        ours={"embedding_scale": HIDDEN**0.5},
        num_layers=7,
    ),
    "smollm3": lambda: Architecture(
        "SmolLM3",
        PRESETS["smollm-3-3b"],
        LLAMA,
        _SIZES
        | {"num_hidden_layers": 5, "num_key_value_heads": 2, "tie_word_embeddings": True}
        | _rope(5000000.0),
        num_layers=5,
    ),
    "diffllama": lambda: Architecture(
        "DiffLlama",
        PRESETS["diffllama-1b"],
        DIFFLLAMA,
        _SIZES | {"rms_norm_eps": 1e-5, "num_key_value_heads": 2, "head_dim": 12} | _rope(10000.0),
        attention={"num_key_value_heads": 2},
    ),
    "mixtral": lambda: Architecture(
        "Mixtral",
        PRESETS["mixtral-8x7b"],
        MIXTRAL,
        _SIZES
        | {"intermediate_size": EXPERT_SIZE, "num_local_experts": EXPERTS, "num_key_value_heads": 2}
        | {"rms_norm_eps": 1e-5}
        | _rope(1000000.0),
    ),
    "gpt-oss": lambda: Architecture(
        "GptOss",
        PRESETS["gpt-oss-20b"],
        GPT_OSS,
        _SIZES
        | {"intermediate_size": EXPERT_SIZE, "num_local_experts": EXPERTS, "num_key_value_heads": 2}
        | {"head_dim": 16, "sliding_window": WINDOW}
        | _rope(150000.0, **_YARN, truncate=False),
        attention={
            "head_dim": 16,
            "position": Rope(150000.0, scaling=YarnScaling(4.0, 32, truncate=False)),
        },
    ),
    "deepseek-v3": lambda: Architecture(
        "DeepseekV3",
        PRESETS["deepseek-v3"],
        deepseek_v3_names(HEADS, 12, 10),
        _SIZES
        | _LATENT
        | {"q_lora_rank": 20, "n_shared_experts": 1, "num_experts_per_tok": 3}
        | {"n_group": 4, "topk_group": 2, "routed_scaling_factor": 2.5}
        | _rope(10000.0, **_YARN, mscale=1.0, mscale_all_dim=1.0),
        attention=_OUR_LATENT
        | {
            "query_latent_size": 20,
            "position": InterleavedRope(scaling=YarnScaling(4.0, 32, attention_factor=1.0)),
            "score_scale": 20**-0.5 * YarnScaling(4.0).amplitude ** 2,
        },
        experts={"num_experts_per_token": 3, "num_groups": 4, "num_groups_per_token": 2},
    ),
    "moonlight": lambda: Architecture(
        "DeepseekV3",
        PRESETS["moonlight-16b"],
        deepseek_v3_names(HEADS, 12, 10, compressed_queries=False),
        _SIZES
        | _LATENT
        | {"q_lora_rank": None, "n_shared_experts": 2, "num_experts_per_tok": 2}
        | {"n_group": 1, "topk_group": 1, "routed_scaling_factor": 2.446, "rms_norm_eps": 1e-5}
        | _rope(50000.0),
        attention=_OUR_LATENT,
        experts={"num_experts_per_token": 2},
    ),
    "mpt": lambda: Architecture(
        "Mpt",
        PRESETS["mpt-7b"],
        MPT,
        {
            "vocab_size": VOCABULARY,
            "d_model": HIDDEN,
            "n_layers": LAYERS,
            "n_heads": 6,
            "max_seq_len": CONTEXT,
        },
        attention={"num_heads": 6},
        ours={"feed_forward": PRESETS["mpt-7b"].config.feed_forward},
    ),
    "qwen2": lambda: Architecture(
        "Qwen2",
        PRESETS["qwen-2-0.5b"],
        LLAMA,
        _SIZES | {"num_key_value_heads": 2, "tie_word_embeddings": True} | _rope(1000000.0),
    ),
    "qwen3": lambda: Architecture(
        "Qwen3",
        PRESETS["qwen-3-0.6b"],
        LLAMA,
        _SIZES | {"num_key_value_heads": 2, "head_dim": 16, "tie_word_embeddings": True} | _rope(1000000.0),
        attention={"head_dim": 16},
    ),
    "olmo2": lambda: Architecture(
        "Olmo2", PRESETS["olmo-2-7b"], OLMO2, _SIZES | {"rms_norm_eps": 1e-6} | _rope(500000.0)
    ),
    "phi3": lambda: Architecture(
        "Phi3",
        PRESETS["phi-3-mini"],
        PHI3,
        _SIZES
        | {"rms_norm_eps": 1e-5, "sliding_window": WINDOW, "original_max_position_embeddings": CONTEXT}
        | _rope(10000.0),
    ),
    "phi3, long": lambda: Architecture(
        "Phi3",
        PRESETS["phi-3-mini"],
        PHI3,
        _SIZES | {"rms_norm_eps": 1e-5, "original_max_position_embeddings": 16} | _rope(10000.0, **_LONGROPE),
        # Theirs takes the long factors for every token of a text that is long.
        attention={
            "window": None,
            "position": Rope(scaling=LongRopeScaling(SHORT_FACTORS, LONG_FACTORS, 4.0, 16, always_long=True)),
        },
    ),
    "pythia": lambda: Architecture(
        "GPTNeoX",
        PRESETS["pythia-160m"],
        gpt_neox_names(2, 24),
        _SIZES | {"num_attention_heads": 2} | _rope(10000.0, partial_rotary_factor=0.25),
        attention={"num_heads": 2},
    ),
    "bloom": lambda: Architecture(
        "Bloom",
        PRESETS["bloom-560m"],
        bloom_names(6, 8),
        {
            "vocab_size": VOCABULARY,
            "hidden_size": HIDDEN,
            "n_layer": LAYERS,
            "n_head": 6,
            "bos_token_id": 1,
            "eos_token_id": 2,
        },
        attention={"num_heads": 6},  # no power of two
        ours={"feed_forward": PRESETS["bloom-560m"].config.feed_forward},  # theirs is always 4 times as wide
    ),
    "falcon": lambda: Architecture(
        "Falcon",
        PRESETS["falcon-7b"],
        falcon_names(HEADS, 1, 12, shared_norm=True),
        _SIZES | {"ffn_hidden_size": INTERMEDIATE} | _rope(10000.0),
        attention={"num_key_value_heads": 1},
    ),
    "falcon, two norms": lambda: Architecture(
        "Falcon",
        PRESETS["falcon-7b"],
        falcon_names(HEADS, 2, 12, shared_norm=False),
        _SIZES
        | {"ffn_hidden_size": INTERMEDIATE, "new_decoder_architecture": True, "num_kv_heads": 2}
        | _rope(10000.0),
        attention={"num_key_value_heads": 2},
        ours={"block": ParallelResidual()},
    ),
    "falcon, linear biases": lambda: Architecture(
        "Falcon",
        PRESETS["falcon-7b"],
        replace(
            falcon_names(HEADS, HEADS, 12, shared_norm=True),
            block=falcon_names(HEADS, HEADS, 12, shared_norm=True).block
            | both("feed_forward_norm", "post_attention_layernorm"),
        ),
        _SIZES
        | {"ffn_hidden_size": INTERMEDIATE, "alibi": True, "multi_query": False, "bias": True}
        | {"parallel_attn": False, "rope_parameters": None},
        attention={
            "num_key_value_heads": None,
            "position": Alibi(factor=12**-0.5),
            "qkv_bias": True,
            "output_bias": True,
        },
        ours={"block": PreNorm(), "feed_forward": MLP(INTERMEDIATE, "gelu", bias=True)},
        eager=False,  # their plain form counts the bias twice
    ),
    "gpt-j": lambda: Architecture(
        "GPTJ",
        PRESETS["gpt-j-6b"],
        GPTJ,
        {
            "vocab_size": VOCABULARY,
            "n_positions": CONTEXT,
            "n_embd": HIDDEN,
            "n_layer": LAYERS,
            "n_head": 2,
            "n_inner": INTERMEDIATE,
            "rotary_dim": 6,
            "bos_token_id": 1,
            "eos_token_id": 2,
        },
        attention={"num_heads": 2},
    ),
    "phi-2": lambda: Architecture(
        "Phi",
        PRESETS["phi-2"],
        PHI,
        _SIZES | {"num_attention_heads": 2} | _rope(10000.0, partial_rotary_factor=0.5),
        attention={"num_heads": 2, "position": Rope(rotated_share=0.5)},
    ),
    "cohere": lambda: Architecture(
        "Cohere",
        PRESETS["command-r-plus"],
        LLAMA,
        _SIZES
        | {"num_key_value_heads": 2, "use_qk_norm": True, "logit_scale": 0.3, "layer_norm_eps": 1e-5}
        | _rope(75000000.0),
        ours={"output_scale": 0.3},
    ),
    "granite": lambda: Architecture(
        "Granite",
        PRESETS["granite-3.1-2b"],
        LLAMA,
        _SIZES
        | {"num_key_value_heads": 2, "rms_norm_eps": 1e-5, "tie_word_embeddings": True}
        | {"embedding_multiplier": 3.0, "attention_multiplier": 0.2}
        | {"residual_multiplier": 0.22, "logits_scaling": 2.0}
        | _rope(5000000.0),
        attention={"score_scale": 0.2},
        ours={"embedding_scale": 3.0, "output_scale": 0.5},
    ),
    "stablelm": lambda: Architecture(
        "StableLm",
        PRESETS["stablelm-2-12b"],
        stablelm_names(2, 1),
        _SIZES
        | {"num_attention_heads": 2, "num_key_value_heads": 1, "qk_layernorm": True}
        | {"use_parallel_residual": True, "layer_norm_eps": 1e-5}
        | _rope(10000.0, partial_rotary_factor=0.25),
        attention={"num_heads": 2, "num_key_value_heads": 1},
    ),
    "starcoder2": lambda: Architecture(
        "Starcoder2",
        PRESETS["starcoder2-3b"],
        STARCODER2,
        _SIZES
        | {"num_key_value_heads": 2, "sliding_window": WINDOW, "norm_epsilon": 1e-5}
        | {"tie_word_embeddings": True, "embedding_dropout": 0.0, "residual_dropout": 0.0}
        | _rope(999999.4420358813),
    ),
    "olmo3": lambda: Architecture(
        "Olmo3",
        PRESETS["olmo-3-7b"],
        OLMO2,
        _SIZES
        | {"num_hidden_layers": 5, "sliding_window": WINDOW, "rms_norm_eps": 1e-6}
        | _rope(500000.0, **_OLMO3_YARN),
        ours={"attention": _small_olmo3()},
        num_layers=5,
        change=_rotate_local_layers_plainly,
    ),
    "glm-4": lambda: Architecture(
        "Glm4",
        PRESETS["glm-4-9b"],
        GLM4,
        _SIZES
        | {"num_key_value_heads": 2, "head_dim": 12, "rms_norm_eps": 1e-5, "attention_bias": True}
        | _rope(10000.0, partial_rotary_factor=0.5),
        attention={"head_dim": 12},
    ),
    "llama with biases": lambda: Architecture(
        "Llama",
        PRESETS["llama-2-7b"],
        LLAMA,
        _SIZES | {"rms_norm_eps": 1e-5, "mlp_bias": True, "attention_bias": True} | _rope(10000.0),
        attention={"qkv_bias": True, "output_bias": True},
        ours={"feed_forward": SwiGLU(INTERMEDIATE, bias=True)},
    ),
    "mixtral, one expert a token": lambda: Architecture(
        "Mixtral",
        PRESETS["mixtral-8x7b"],
        MIXTRAL,
        _SIZES
        | {"intermediate_size": EXPERT_SIZE, "num_local_experts": EXPERTS, "num_key_value_heads": 2}
        | {"rms_norm_eps": 1e-5, "num_experts_per_tok": 1}
        | _rope(1000000.0),
        experts={"num_experts_per_token": 1},
        without_gradient=("router.projection.weight",),  # the weight of a single expert is always 1
    ),
    "qwen2-moe": lambda: Architecture(
        "Qwen2Moe",
        PRESETS["qwen-1.5-moe"],
        QWEN_MOE,
        _SIZES
        | {"num_key_value_heads": HEADS, "num_experts": EXPERTS, "num_experts_per_tok": 4}
        | {"moe_intermediate_size": EXPERT_SIZE}
        | {"shared_expert_intermediate_size": 2 * EXPERT_SIZE, "norm_topk_prob": False}
        | _rope(1000000.0),
        experts={"num_shared_experts": 2},
    ),
    "qwen3-moe": lambda: Architecture(
        "Qwen3Moe",
        PRESETS["qwen-3-30b-a3b"],
        QWEN_MOE,
        _SIZES
        | {"num_key_value_heads": 2, "head_dim": 16, "num_experts": EXPERTS, "num_experts_per_tok": 3}
        | {"moe_intermediate_size": EXPERT_SIZE, "norm_topk_prob": True}
        | _rope(1000000.0),
        attention={"head_dim": 16},
        experts={"num_experts_per_token": 3},
    ),
    "llama4": lambda: Architecture(
        "Llama4",
        PRESETS["llama-4-scout"],
        LLAMA4,
        _SIZES
        | {"num_hidden_layers": 5, "num_key_value_heads": 2, "head_dim": 12, "rms_norm_eps": 1e-5}
        | {"intermediate_size": EXPERT_SIZE, "intermediate_size_mlp": 40, "num_local_experts": EXPERTS}
        | {"attention_chunk_size": WINDOW, "floor_scale": 8}
        | _rope(500000.0, **_LLAMA3 | {"factor": 16.0, "high_freq_factor": 1.0}),
        ours={"attention": _small_llama4()},
        num_layers=5,
    ),
    "nemotron": lambda: Architecture(
        "Nemotron",
        PRESETS["minitron-4b"],
        NEMOTRON,
        _SIZES
        | {"num_key_value_heads": 2, "head_dim": 16, "norm_eps": 1e-5, "hidden_act": "relu2"}
        | _rope(10000.0, partial_rotary_factor=0.5),
        attention={"head_dim": 16},
    ),
}
