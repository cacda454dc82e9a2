"""The batches of an interrupted and resumed run are those of an uninterrupted one, in a real Trainer."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from insight.data import ByteTokenizerConfig, LanguageModelBatch, LanguageModelingDataModule
from insight.data.sampling import Packing
from insight.runtime.errors import CheckpointError
from insight.runtime.messages import silence_libraries

NUM_BATCHES = 5  # an epoch, see data_module


class Recorder(pl.LightningModule):
    """The smallest module that trains; remembers what it was given."""

    def __init__(self, advance_late: bool = False) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(257, 4)
        self.seen: list[list[list[int]]] = []
        self.validated: list[list[list[int]]] = []
        self.advance_late = advance_late

    def training_step(self, batch: LanguageModelBatch, batch_index: int) -> torch.Tensor:
        self.seen.append(batch.input_ids.tolist())
        loss = self.embedding(batch.input_ids).square().mean()
        if not self.advance_late:
            self.advance(batch)
        return loss

    def on_train_batch_end(self, outputs: object, batch: LanguageModelBatch, batch_index: int) -> None:
        if self.advance_late:
            self.advance(batch)

    def advance(self, batch: LanguageModelBatch) -> None:
        self.trainer.datamodule.advance(len(batch.input_ids) * self.trainer.world_size)

    def validation_step(self, batch: LanguageModelBatch, batch_index: int) -> None:
        self.validated.append(batch.input_ids.tolist())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.fixture
def data_module(tmp_path: Path) -> Callable[..., LanguageModelingDataModule]:
    text = tmp_path / "text.txt"
    text.write_text("".join(chr(97 + (i * i + i // 7) % 26) for i in range(8 * 4 * NUM_BATCHES + 13)))
    held_out = tmp_path / "held_out.txt"
    held_out.write_text("some other text that is held out")

    def make(**options: object) -> LanguageModelingDataModule:
        settings: dict[str, object] = {
            "validation_files": str(held_out),
            "sequence_length": 8,
            "batch_size": 4,
        } | options
        return LanguageModelingDataModule(
            str(text),
            tokenizer=ByteTokenizerConfig(),
            cache_dir=str(tmp_path / "cache"),
            **settings,
        )

    return make


def run(
    data: LanguageModelingDataModule,
    folder: Path,
    checkpoint: Path | None = None,
    module: Recorder | None = None,
    save: dict[str, object] | None = None,
    **options: object,
) -> Recorder:
    module = module or Recorder()
    saving = {"every_n_train_steps": 1} if save is None else save
    settings: dict[str, object] = {"max_epochs": 3} | options
    trainer = pl.Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        callbacks=[ModelCheckpoint(folder, "{step}", save_top_k=-1, **saving)],
        **settings,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings("error", message=".*your dataloader is not resumable.*")
        trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    return module


def test_epochs_differ_and_cover_the_text(
    data_module: Callable[..., LanguageModelingDataModule], tmp_path: Path
) -> None:
    seen = run(data_module(), tmp_path / "run").seen
    assert len(seen) == 3 * NUM_BATCHES
    epochs = [seen[first : first + NUM_BATCHES] for first in range(0, len(seen), NUM_BATCHES)]
    assert epochs[0] != epochs[1] != epochs[2]


@pytest.mark.parametrize("step", [1, 3, NUM_BATCHES - 1, NUM_BATCHES, NUM_BATCHES + 1, 2 * NUM_BATCHES])
def test_resume_after_any_step_gives_the_same_batches(
    data_module: Callable[..., LanguageModelingDataModule], tmp_path: Path, step: int
) -> None:
    whole = run(data_module(), tmp_path / "whole")
    rest = run(data_module(), tmp_path / "rest", tmp_path / "whole" / f"step={step}.ckpt")
    assert rest.seen == whole.seen[step:]


def test_resume_of_a_resumed_run(
    data_module: Callable[..., LanguageModelingDataModule], tmp_path: Path
) -> None:
    whole = run(data_module(), tmp_path / "whole")
    run(data_module(), tmp_path / "second", tmp_path / "whole" / "step=3.ckpt")
    third = run(data_module(), tmp_path / "third", tmp_path / "second" / "step=7.ckpt")
    assert third.seen == whole.seen[7:]


@pytest.mark.parametrize("total", [4, NUM_BATCHES, 8])
def test_stop_by_steps_then_go_on(
    data_module: Callable[..., LanguageModelingDataModule], tmp_path: Path, total: int
) -> None:
    whole = run(data_module(), tmp_path / "whole", max_epochs=-1, max_steps=13)
    first = run(data_module(), tmp_path / "first", max_epochs=-1, max_steps=total)
    second = run(
        data_module(),
        tmp_path / "second",
        tmp_path / "first" / f"step={total}.ckpt",
        max_epochs=-1,
        max_steps=13,
    )
    assert first.seen + second.seen == whole.seen


def test_resume_with_accumulation_and_validation_inside_the_epoch(
    data_module: Callable[..., LanguageModelingDataModule], tmp_path: Path
) -> None:
    options = {"accumulate_grad_batches": 2, "val_check_interval": 2}
    whole = run(data_module(), tmp_path / "whole", **options)
    # An epoch has text for 5 batches, and takes 2 whole steps of it: step 3 is in the middle of the second.
    rest = run(data_module(), tmp_path / "rest", tmp_path / "whole" / "step=3.ckpt", **options)
    assert len(whole.seen) == 3 * (NUM_BATCHES - 1)
    assert rest.seen == whole.seen[6:]
    assert rest.validated == whole.validated[-len(rest.validated) :]


@pytest.mark.parametrize(
    "save",
    [{"every_n_epochs": 1, "save_on_train_epoch_end": True}, {"every_n_epochs": 1}],
    ids=["epoch", "validation"],
)
def test_resume_from_the_end_of_an_epoch(
    data_module: Callable[..., LanguageModelingDataModule], tmp_path: Path, save: dict[str, object]
) -> None:
    whole = run(data_module(), tmp_path / "whole", save=save)
    rest = run(data_module(), tmp_path / "rest", tmp_path / "whole" / f"step={NUM_BATCHES}.ckpt", save=save)
    assert rest.seen == whole.seen[NUM_BATCHES:]


def test_limited_epochs_go_on_through_the_text(
    data_module: Callable[..., LanguageModelingDataModule], tmp_path: Path
) -> None:
    whole = run(data_module(), tmp_path / "whole", max_epochs=3)
    limited = run(data_module(), tmp_path / "limited", max_epochs=5, limit_train_batches=3)
    assert limited.seen == whole.seen
    rest = run(
        data_module(),
        tmp_path / "rest",
        tmp_path / "limited" / "step=4.ckpt",
        max_epochs=5,
        limit_train_batches=3,
    )
    assert rest.seen == whole.seen[4:]


def test_planted_fault_cursor_off_by_one(
    data_module: Callable[..., LanguageModelingDataModule], tmp_path: Path
) -> None:
    """The comparison above notices a cursor that is one batch behind."""
    whole = run(data_module(), tmp_path / "whole")
    path = tmp_path / "whole" / "step=3.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["LanguageModelingDataModule"]["num_samples_consumed"] -= 4
    torch.save(checkpoint, path)
    rest = run(data_module(), tmp_path / "rest", path)
    assert rest.seen != whole.seen[3:]
    assert rest.seen == whole.seen[2:-1]


def test_planted_fault_advancing_after_the_callbacks(
    data_module: Callable[..., LanguageModelingDataModule], tmp_path: Path
) -> None:
    """Why ``advance`` belongs in ``training_step``: a module's ``on_train_batch_end`` runs after the save."""
    whole = run(data_module(), tmp_path / "whole", module=Recorder(advance_late=True))
    rest = run(data_module(), tmp_path / "rest", tmp_path / "whole" / "step=3.ckpt")
    assert rest.seen != whole.seen[3:]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"sequence_length": 4}, "sequence_length=4 (saved: 8)"),
        ({"batch_size": 2}, "global_batch_size=2 (saved: 4)"),
        ({"seed": 1}, "seed=1 (saved: 0)"),
        ({"sampling": Packing()}, "sampling="),
    ],
)
def test_other_settings_are_refused(
    data_module: Callable[..., LanguageModelingDataModule],
    tmp_path: Path,
    options: dict[str, object],
    named: str,
) -> None:
    run(data_module(), tmp_path / "run", max_epochs=1)
    with pytest.raises(CheckpointError) as caught:
        run(data_module(**options), tmp_path / "other", tmp_path / "run" / "step=3.ckpt")
    assert named in str(caught.value)


def test_other_text_is_refused(
    data_module: Callable[..., LanguageModelingDataModule], tmp_path: Path
) -> None:
    run(data_module(), tmp_path / "run", max_epochs=1)
    (tmp_path / "text.txt").write_text("entirely other words, " * 20)
    with pytest.raises(CheckpointError, match="training_text="):
        run(data_module(), tmp_path / "other", tmp_path / "run" / "step=3.ckpt")


def test_validating_a_checkpoint_needs_no_matching_cursor(
    data_module: Callable[..., LanguageModelingDataModule], tmp_path: Path
) -> None:
    run(data_module(), tmp_path / "run", max_epochs=1)
    trainer = pl.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False
    )
    module = Recorder()
    checkpoint = tmp_path / "run" / "step=3.ckpt"
    trainer.validate(module, datamodule=data_module(sequence_length=4), ckpt_path=checkpoint, verbose=False)
    assert module.validated


def test_a_run_without_validation_leaks_no_warning(
    tmp_path: Path, data_module: Callable[..., LanguageModelingDataModule]
) -> None:
    data = data_module(validation_files=None, validation_fraction=0.0)
    trainer = pl.Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
        max_steps=1,
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        silence_libraries()
        trainer.fit(Recorder(), datamodule=data)
    assert not [warning for warning in caught if "across ranks is zero" in str(warning.message)]
