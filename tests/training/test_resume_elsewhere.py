"""A run goes on with another accumulation or other workers: the same samples in every step."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.plugins.precision import MixedPrecision
from test_resume import N, SaveAfterBatch, SaveAt
from tiny_training import LossRecorder, same_weights, train

from insight.runtime.errors import CheckpointError
from insight.training import module as training_module

Rows = dict[int, list[list[int]]]
SAVED, LAST = 13, 48  # in the middle of the first epoch; in the third


class StepRecorder(pl.Callback):
    """The samples of each optimizer step, in any order, and its loss."""

    def __init__(self) -> None:
        self.rows: Rows = defaultdict(list)
        self.losses: dict[int, float] = {}
        self.epochs: dict[int, int] = {}

    def on_train_batch_start(self, trainer: pl.Trainer, module: Any, batch: Any, batch_idx: int) -> None:
        self.rows[trainer.global_step] += batch.input_ids.tolist()
        self.epochs[trainer.global_step] = trainer.current_epoch

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if "train/loss" in trainer.callback_metrics:
            self.losses[trainer.global_step] = float(trainer.callback_metrics["train/loss"])


def run(
    folder: Path,
    batch_size: int,
    accumulate: int,
    *callbacks: pl.Callback,
    checkpoint: Path | None = None,
    **data_options: Any,
) -> StepRecorder:
    recorder = StepRecorder()
    train(
        folder,
        LAST,
        callbacks=(recorder, *callbacks),
        ckpt_path=None if checkpoint is None else str(checkpoint),
        trainer_options={"accumulate_grad_batches": accumulate},
        data_options={"batch_size": batch_size, **data_options},
    )
    return recorder


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[StepRecorder, Path]:
    """A run in steps of eight samples, over several epochs, and its checkpoint in the middle of one."""
    folder = tmp_path_factory.mktemp("whole")
    path = folder / "middle.ckpt"
    return run(folder, 8, 1, SaveAt(SAVED, path)), path


def tail(recorder: StepRecorder) -> Rows:
    return {step: rows for step, rows in recorder.rows.items() if step >= SAVED}


@pytest.mark.slow
@pytest.mark.parametrize(("batch_size", "accumulate"), [(8, 1), (4, 2), (2, 4), (1, 8)])
def test_accumulation_may_change(whole: tuple[StepRecorder, Path], batch_size: int, accumulate: int) -> None:
    """As when half of the processes are gone and each makes twice as many batches."""
    before, path = whole
    assert max(before.epochs.values()) >= 2
    rest = run(path.parent, batch_size, accumulate, checkpoint=path)
    assert len(rest.rows) == LAST - SAVED
    assert rest.rows == tail(before)
    assert rest.epochs == {step: epoch for step, epoch in before.epochs.items() if step >= SAVED}
    losses = {step: loss for step, loss in before.losses.items() if step > SAVED}
    assert {step: rest.losses[step] for step in losses} == pytest.approx(losses, abs=1e-4)


@pytest.mark.slow
def test_accumulation_may_change_the_other_way(whole: tuple[StepRecorder, Path], tmp_path: Path) -> None:
    before, _ = whole
    path = tmp_path / "middle.ckpt"
    run(tmp_path, 2, 4, SaveAt(SAVED, path))
    assert run(tmp_path, 4, 2, checkpoint=path).rows == tail(before)


@pytest.mark.parametrize("fault", ["batches counted as before", "cursor off by one"])
def test_a_step_of_other_samples_would_be_noticed(
    whole: tuple[StepRecorder, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    before, path = whole
    if fault == "batches counted as before":
        monkeypatch.setattr(training_module, "count_batches_anew", lambda *_: None)
    else:
        checkpoint = torch.load(path, weights_only=True)
        checkpoint["LanguageModelingDataModule"]["num_samples_consumed"] -= 4
        path = tmp_path / "damaged.ckpt"
        torch.save(checkpoint, path)
    folder = whole[1].parent
    assert run(folder, 4, 2, checkpoint=path).rows != tail(before)


@pytest.mark.slow
@pytest.mark.parametrize("saved_with", [0, 2])
def test_the_number_of_workers_may_change(
    whole: tuple[StepRecorder, Path], tmp_path: Path, saved_with: int
) -> None:
    before, path = whole
    if saved_with:
        path = tmp_path / "middle.ckpt"
        run(tmp_path, 8, 1, SaveAt(SAVED, path), num_workers=saved_with)
    rest = run(path.parent, 8, 1, checkpoint=path, num_workers=2 - saved_with)
    assert rest.rows == tail(before)


@pytest.mark.parametrize(("batch_size", "accumulate"), [(4, 1), (8, 2), (16, 1)])
def test_another_number_of_samples_a_step_is_refused(
    whole: tuple[StepRecorder, Path], batch_size: int, accumulate: int
) -> None:
    samples = batch_size * accumulate
    with pytest.raises(CheckpointError, match=rf"global_batch_size={samples} \(saved: 8\)") as caught:
        run(whole[1].parent, batch_size, accumulate, checkpoint=whole[1])
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_a_place_inside_a_batch_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "inside.ckpt"
    run(tmp_path, 2, 4, SaveAfterBatch(13, path))
    with pytest.raises(CheckpointError, match="inside a batch of 8"):
        run(tmp_path, 8, 1, checkpoint=path)


# ---------------------------------------------------------------------- mixed precision


def scaled(folder: Path, path: Path, checkpoint: Path | None = None) -> tuple[LossRecorder, Any, float]:
    """Training in float16 with a scaler that grows every third step."""
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0, growth_interval=3)
    plugin = MixedPrecision("16-mixed", "cpu", scaler)
    recorder, module, _ = train(
        folder,
        2 * N,
        dropout=0.1,
        callbacks=(SaveAt(N, path),),
        ckpt_path=None if checkpoint is None else str(checkpoint),
        trainer_options={"plugins": [plugin]},
    )
    return recorder, module, scaler.get_scale()


@pytest.mark.slow
@pytest.mark.parametrize("drops_scaler", [False, True])
def test_the_scaler_of_float16_is_restored(tmp_path: Path, drops_scaler: bool) -> None:
    """With the planted fault it begins anew, and has grown less at the end."""
    path = tmp_path / "middle.ckpt"
    whole, module, scale = scaled(tmp_path, path)
    assert scale == 2.0 * 2 ** (2 * N // 3)
    if drops_scaler:
        checkpoint = torch.load(path, weights_only=True)
        del checkpoint["MixedPrecision"]
        torch.save(checkpoint, path)
    resumed, resumed_module, resumed_scale = scaled(tmp_path, path, path)
    assert len(resumed.losses) == N
    assert (resumed_scale == scale) is not drops_scaler
    if not drops_scaler:
        assert resumed.losses == whole.losses[N:]
        assert same_weights(module, resumed_module)
