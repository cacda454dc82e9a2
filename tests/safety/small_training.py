"""A network small enough to be trained in seconds in a test, by the real data module, module and Trainer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl

from insight.checkpoints.reader import LoadedCheckpoint, load_checkpoint
from insight.data import ByteTokenizerConfig, LanguageModelingDataModule
from insight.models import DecoderConfig, GroupedQueryAttention, SwiGLU
from insight.runtime.messages import silence_libraries
from insight.runtime.seeding import seed_everything
from insight.training import LanguageModelingModule, WarmupStableDecay


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
    return load_checkpoint(folder / "model.ckpt")
