"""A real data module and a tiny real network, small enough for many trainings in a test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch

from insight.data import ByteTokenizerConfig, LanguageModelingDataModule
from insight.data.corpora import read_corpus
from insight.models import DecoderConfig, GroupedQueryAttention, SwiGLU
from insight.runtime.seeding import seed_everything
from insight.training import LanguageModelingModule, WarmupStableDecay

NUM_BYTES = 6_000


def text_file(folder: Path) -> Path:
    path = folder / "text.txt"
    path.write_text(read_corpus("austen-emma")[:NUM_BYTES])
    return path


def make_data(folder: Path, **options: Any) -> LanguageModelingDataModule:
    settings = {"sequence_length": 32, "batch_size": 4, "validation_fraction": 0.2} | options
    return LanguageModelingDataModule(
        str(text_file(folder)),
        tokenizer=ByteTokenizerConfig(),
        cache_dir=str(folder / "cache"),
        **settings,
    )


def make_module(dropout: float = 0.0, **options: Any) -> LanguageModelingModule:
    network = DecoderConfig(
        hidden_size=32,
        num_layers=2,
        attention=GroupedQueryAttention(num_heads=4, num_key_value_heads=2),
        feed_forward=SwiGLU(intermediate_size=64),
        max_sequence_length=64,
        dropout=dropout,
    )
    return LanguageModelingModule(network, schedule=WarmupStableDecay(warmup_steps=3), **options)


def make_trainer(folder: Path, max_steps: int, **options: Any) -> pl.Trainer:
    settings: dict[str, Any] = {
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "limit_val_batches": 0,
        "max_epochs": -1,
    }
    return pl.Trainer(default_root_dir=str(folder), max_steps=max_steps, **(settings | options))


class LossRecorder(pl.Callback):
    """Every step's loss and learning rate, as floats that compare bit for bit."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.rates: list[float] = []

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, *_: Any) -> None:
        self.losses.append(float(outputs["loss"]))
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])


def train(
    folder: Path,
    max_steps: int,
    *,
    ckpt_path: str | None = None,
    callbacks: tuple[pl.Callback, ...] = (),
    trainer_options: dict[str, Any] | None = None,
    data_options: dict[str, Any] | None = None,
    **module_options: Any,
) -> tuple[LossRecorder, LanguageModelingModule, pl.Trainer]:
    """Train from scratch (or a checkpoint) under a fixed seed."""
    seed_everything(1)
    recorder = LossRecorder()
    module = make_module(**module_options)
    trainer = make_trainer(folder, max_steps, callbacks=[recorder, *callbacks], **(trainer_options or {}))
    trainer.fit(module, make_data(folder, **(data_options or {})), ckpt_path=ckpt_path, weights_only=True)
    return recorder, module, trainer


def same_weights(first: torch.nn.Module, second: torch.nn.Module) -> bool:
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)
