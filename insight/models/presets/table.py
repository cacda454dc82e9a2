"""All presets by name."""

from __future__ import annotations

from insight.models.presets.bloom import BLOOM_560M
from insight.models.presets.deepseek import DEEPSEEK_V3, MOONLIGHT_16B
from insight.models.presets.diffllama import DIFFLLAMA_1B
from insight.models.presets.falcon import FALCON_7B
from insight.models.presets.gemma import GEMMA2_2B, GEMMA3_1B
from insight.models.presets.gpt2 import GPT2
from insight.models.presets.gpt_neox import PYTHIA_160M
from insight.models.presets.gpt_oss import GPT_OSS_20B
from insight.models.presets.llama import LLAMA2_7B, LLAMA31_8B, LLAMA32_1B, SMOLLM2_135M
from insight.models.presets.marian import MARIAN
from insight.models.presets.mistral import MISTRAL_7B, MIXTRAL_8X7B
from insight.models.presets.mpt import MPT_7B
from insight.models.presets.olmo import OLMO2_7B
from insight.models.presets.phi import PHI3_MINI
from insight.models.presets.preset import Preset
from insight.models.presets.qwen import QWEN2_05B, QWEN3_06B
from insight.models.presets.smollm3 import SMOLLM3_3B
from insight.models.presets.t5 import T5_SMALL, T5_V11_SMALL

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
