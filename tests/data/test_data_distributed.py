"""Two real processes see together what one would see, also when they go on with one process's checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from insight.data import ByteTokenizerConfig, LanguageModelBatch, LanguageModelingDataModule


class FileRecorder(pl.LightningModule):
    """Writes what each rank was given to a file of its own."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(257, 4)
        self.folder = folder

    def training_step(self, batch: LanguageModelBatch, batch_index: int) -> torch.Tensor:
        self.write("train", batch)
        loss = self.embedding(batch.input_ids).square().mean()
        self.trainer.datamodule.advance(len(batch.input_ids) * self.trainer.world_size)
        return loss

    def validation_step(self, batch: LanguageModelBatch, batch_index: int) -> None:
        self.write("validation", batch)

    def write(self, name: str, batch: LanguageModelBatch) -> None:
        with open(self.folder / f"{name}{self.global_rank}.jsonl", "a") as file:
            file.write(json.dumps([batch.input_ids.tolist(), batch.targets.tolist()]) + "\n")

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def run(folder: Path, cache: Path, batch_size: int, devices: int, checkpoint: Path | None = None) -> None:
    folder.mkdir()
    data = LanguageModelingDataModule(
        "corpus:austen-emma",
        str(cache / "held_out.txt"),
        tokenizer=ByteTokenizerConfig(),
        sequence_length=1000,
        batch_size=batch_size,
        cache_dir=str(cache),
    )
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=devices,
        strategy="ddp_spawn" if devices > 1 else "auto",
        max_steps=6,
        val_check_interval=6,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        callbacks=[ModelCheckpoint(folder, "{step}", save_top_k=-1, every_n_train_steps=1)],
    )
    trainer.fit(FileRecorder(folder), datamodule=data, ckpt_path=checkpoint, weights_only=True)


def records(folder: Path, name: str, rank: int = 0) -> list[list[list[list[int]]]]:
    return [json.loads(line) for line in (folder / f"{name}{rank}.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_two_processes_go_on_with_the_batches_of_one(tmp_path: Path) -> None:
    (tmp_path / "held_out.txt").write_text("held out " * 1000)
    one, two = tmp_path / "one", tmp_path / "two"
    run(one, tmp_path, batch_size=4, devices=1)
    run(two, tmp_path, batch_size=2, devices=2, checkpoint=one / "step=3.ckpt")

    expected = [inputs for inputs, _ in records(one, "train")[3:]]
    ranks = [[inputs for inputs, _ in records(two, "train", rank)] for rank in range(2)]
    together = [
        [row for pair in zip(*rows, strict=True) for row in pair] for rows in zip(*ranks, strict=True)
    ]
    assert together == expected

    def targets(folder: Path, *of_ranks: int) -> list[int]:
        batches = [batch for rank in of_ranks for batch in records(folder, "validation", rank)]
        return sorted(index for _, rows in batches for row in rows for index in row if index >= 0)

    assert targets(two, 0, 1) == targets(one, 0)
    assert len(targets(one, 0)) == 9001
    assert len(records(two, "validation", 0)) == len(records(two, "validation", 1))
