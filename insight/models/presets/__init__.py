"""Published networks as plain configurations, one file a family."""

from insight.models.presets.encoder_decoders import MARIAN, T5_SMALL, T5_V11_SMALL
from insight.models.presets.gemma import GEMMA2_2B, GEMMA3_1B
from insight.models.presets.gpt import BLOOM_560M, FALCON_7B, GPT2, MPT_7B, PYTHIA_160M
from insight.models.presets.llama import (
    DIFFLLAMA_1B,
    LLAMA2_7B,
    LLAMA31_8B,
    LLAMA32_1B,
    MISTRAL_7B,
    MIXTRAL_8X7B,
    OLMO2_7B,
    PHI3_MINI,
    QWEN2_05B,
    QWEN3_06B,
    SMOLLM2_135M,
    SMOLLM3_3B,
)
from insight.models.presets.mixtures import DEEPSEEK_V3, GPT_OSS_20B, MOONLIGHT_16B
from insight.models.presets.preset import Preset

PRESETS: dict[str, Preset] = {
    "bloom-560m": BLOOM_560M,
    "deepseek-v3": DEEPSEEK_V3,
    "diffllama-1b": DIFFLLAMA_1B,
    "falcon-7b": FALCON_7B,
    "gemma-2-2b": GEMMA2_2B,
    "gemma-3-1b": GEMMA3_1B,
    "gpt-oss-20b": GPT_OSS_20B,
    "gpt2": GPT2,
    "llama-2-7b": LLAMA2_7B,
    "llama-3.1-8b": LLAMA31_8B,
    "llama-3.2-1b": LLAMA32_1B,
    "mistral-7b": MISTRAL_7B,
    "mixtral-8x7b": MIXTRAL_8X7B,
    "moonlight-16b": MOONLIGHT_16B,
    "mpt-7b": MPT_7B,
    "olmo-2-7b": OLMO2_7B,
    "opus-mt-en-de": MARIAN,
    "phi-3-mini": PHI3_MINI,
    "pythia-160m": PYTHIA_160M,
    "qwen-2-0.5b": QWEN2_05B,
    "qwen-3-0.6b": QWEN3_06B,
    "smollm-2-135m": SMOLLM2_135M,
    "smollm-3-3b": SMOLLM3_3B,
    "t5-small": T5_SMALL,
    "t5-v1.1-small": T5_V11_SMALL,
}

__all__ = ["PRESETS", "Preset"]
