"""Pairs of an invented language, and a tiny translation model that learns them in seconds."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from insight.data import BPETokenizerConfig, TranslationDataModule
from insight.generation.search import SearchSettings
from insight.generation.translator import TranslationSettings
from insight.models import (
    DecoderConfig,
    EncoderConfig,
    EncoderDecoderConfig,
    GroupedQueryAttention,
    SwiGLU,
)
from insight.models.positions import NoPosition
from insight.training import MuonAdamW, TranslationModule, WarmupStableDecay

WORDS = {"one": "uno", "two": "dos", "three": "tres", "four": "cuatro", "five": "cinco", "six": "seis"}
NUM_PAIRS, NUM_VALIDATION_PAIRS = 240, 17  # odd, so that two processes have shares of unlike size
QUICK_SEARCH = TranslationSettings(SearchSettings(beam_size=2), max_length_factor=1.0, max_length_offset=2)


def pair_file(folder: Path, name: str, number: int, seed: int) -> Path:
    """A file of so many pairs of one to eight words."""
    path = folder / f"{name}.tsv"
    if not path.exists():
        draw = random.Random(seed)
        sources = [draw.choices(list(WORDS), k=draw.randint(1, 8)) for _ in range(number)]
        lines = [f"{' '.join(words)}\t{' '.join(map(WORDS.__getitem__, words))}\n" for words in sources]
        path.write_text("en\tes\n" + "".join(lines), encoding="utf-8")
    return path


def make_data(folder: Path, **options: Any) -> TranslationDataModule:
    settings: dict[str, Any] = {
        "train_files": str(pair_file(folder, "train", NUM_PAIRS, 1)),
        "validation_files": str(pair_file(folder, "validation", NUM_VALIDATION_PAIRS, 2)),
        "tokenizer": BPETokenizerConfig(vocabulary_size=300),
        "source_field": "en",
        "target_field": "es",
        "max_source_length": 24,
        "max_target_length": 24,
        "batch_tokens": 256,
        "cache_dir": str(folder / "cache"),
    }
    return TranslationDataModule(**(settings | options))


def make_network(dropout: float = 0.0, **options: Any) -> EncoderDecoderConfig:
    attention = GroupedQueryAttention(num_heads=2)
    sizes: dict[str, Any] = {
        "hidden_size": 32,
        "num_layers": 1,
        "feed_forward": SwiGLU(intermediate_size=48),
        "max_sequence_length": 64,
        "dropout": dropout,
    }
    settings: dict[str, Any] = {"share_embeddings": True} | options
    return EncoderDecoderConfig(
        EncoderConfig(attention=attention, **sizes),
        DecoderConfig(attention=attention, tie_embeddings=True, **sizes),
        GroupedQueryAttention(num_heads=2, position=NoPosition()),
        **settings,
    )


def make_module(network: EncoderDecoderConfig | None = None, **options: Any) -> TranslationModule:
    settings: dict[str, Any] = {
        "optimizer": MuonAdamW(learning_rate=0.02, adam_learning_rate=0.01, precision="float32"),
        "schedule": WarmupStableDecay(warmup_steps=3),
        "translation": QUICK_SEARCH,
    }
    return TranslationModule(network or make_network(), **(settings | options))
