"""Networks small enough to be trained in seconds in a test, by the real data module, module and Trainer."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl

from insight.checkpoints.reader import (
    LoadedCheckpoint,
    LoadedTranslationModel,
    load_any_checkpoint,
    load_checkpoint,
)
from insight.data import (
    BPETokenizerConfig,
    ByteTokenizerConfig,
    LanguageModelingDataModule,
    TranslationDataModule,
)
from insight.models import (
    DecoderConfig,
    EncoderConfig,
    EncoderDecoderConfig,
    GroupedQueryAttention,
    SwiGLU,
)
from insight.models.positions import NoPosition
from insight.runtime.messages import silence_libraries
from insight.runtime.seeding import seed_everything
from insight.training import LanguageModelingModule, MuonAdamW, TranslationModule, WarmupStableDecay


def train_on(folder: Path, documents: Sequence[str], num_steps: int, **data_options: Any) -> LoadedCheckpoint:
    """Train on some documents from scratch, save a checkpoint, and read it back.

    Args:
        folder: Gets the text, the cache and ``model.ckpt``.
        documents: The training text.
        num_steps: Optimizer steps.
        data_options: More options of the data module.
    """
    silence_libraries()
    seed_everything(0)
    folder.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps({"text": document}) + "\n" for document in documents)
    (folder / "text.jsonl").write_text(lines, encoding="utf-8")
    settings: dict[str, Any] = {"sequence_length": 64, "batch_size": 16, "validation_fraction": 0}
    data = LanguageModelingDataModule(
        str(folder / "text.jsonl"),
        tokenizer=ByteTokenizerConfig(),
        cache_dir=str(folder / "cache"),
        **(settings | data_options),
    )
    network = DecoderConfig(
        hidden_size=64,
        num_layers=2,
        attention=GroupedQueryAttention(num_heads=4, num_key_value_heads=2),
        feed_forward=SwiGLU(intermediate_size=128),
        max_sequence_length=128,
    )
    module = LanguageModelingModule(network, schedule=WarmupStableDecay(warmup_steps=10), compile="off")
    _fit(folder, module, data, num_steps)
    return load_checkpoint(folder / "model.ckpt")


def random_pairs(number: int, seed: int) -> list[tuple[str, str]]:
    """Pairs of sentences whose targets do not follow from their sources: they can only be memorised."""
    draw = random.Random(seed)
    sides = [[f"{first}{second}" for first in "bdfgk" for second in ends] for ends in (_ENDS, _OTHER_ENDS)]
    return [
        (" ".join(draw.choices(sides[0], k=8)), " ".join(draw.choices(sides[1], k=8))) for _ in range(number)
    ]


_ENDS, _OTHER_ENDS = ("alder", "enton", "ispen", "ombur"), ("adora", "entido", "illano", "urbano")


def train_on_pairs(
    folder: Path,
    pairs: Sequence[tuple[str, str]],
    unseen: Sequence[tuple[str, str]],
    num_steps: int,
    **options: Any,
) -> tuple[LoadedTranslationModel, TranslationDataModule]:
    """As :func:`train_on`, for a translation model; the unseen pairs are its test text."""
    silence_libraries()
    seed_everything(0)
    folder.mkdir(parents=True, exist_ok=True)
    for name, chosen in (("train", pairs), ("test", unseen)):
        lines = "".join(f"{source}\t{target}\n" for source, target in chosen)
        (folder / f"{name}.tsv").write_text(f"en\tes\n{lines}", encoding="utf-8")
    settings: dict[str, Any] = {"source_field": "en", "target_field": "es", "validation_fraction": 0}
    data = TranslationDataModule(
        str(folder / "train.tsv"),
        test_files=str(folder / "test.tsv"),
        tokenizer=BPETokenizerConfig(vocabulary_size=300),
        batch_tokens=2000,
        max_source_length=64,
        max_target_length=64,
        cache_dir=str(folder / "cache"),
        **(settings | options),
    )
    attention = GroupedQueryAttention(num_heads=4)
    sizes: dict[str, Any] = {"hidden_size": 64, "num_layers": 1, "max_sequence_length": 160}
    network = EncoderDecoderConfig(
        EncoderConfig(attention=attention, **sizes),
        DecoderConfig(attention=attention, tie_embeddings=True, **sizes),
        GroupedQueryAttention(num_heads=4, position=NoPosition()),
        share_embeddings=True,
    )
    optimizer = MuonAdamW(learning_rate=0.02, adam_learning_rate=0.01, precision="float32")
    module = TranslationModule(network, optimizer, WarmupStableDecay(warmup_steps=5), label_smoothing=0.0)
    _fit(folder, module, data, num_steps)
    loaded = load_any_checkpoint(folder / "model.ckpt")
    assert isinstance(loaded, LoadedTranslationModel)
    return loaded, data


def _fit(folder: Path, module: pl.LightningModule, data: pl.LightningDataModule, num_steps: int) -> None:
    """Train and save ``model.ckpt``."""
    trainer = pl.Trainer(
        default_root_dir=str(folder),
        accelerator="cpu",
        max_steps=num_steps,
        max_epochs=-1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        limit_val_batches=0,
        gradient_clip_val=1.0,
    )
    trainer.fit(module, data)
    trainer.save_checkpoint(folder / "model.ckpt")
