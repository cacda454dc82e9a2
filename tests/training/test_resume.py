"""Resuming is exact, and the proof would notice if it were not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from tiny_training import LossRecorder, make_data, make_module, make_trainer, same_weights, train
from torch.utils.data import DataLoader

from insight.runtime.seeding import seed_everything
from insight.training.step import AccumulationWindow

N = 12


class SaveAt(pl.Callback):
    """Saves once, after a given step, as the run goes on."""

    def __init__(self, step: int, path: Path) -> None:
        self.step, self.path = step, path

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step == self.step and not self.path.exists():
            trainer.save_checkpoint(self.path)


def twice(folder: Path, accumulate: int = 1) -> tuple[LossRecorder, pl.LightningModule, Path]:
    """2N steps without a break, with a checkpoint in the middle (of an epoch too)."""
    path = folder / "middle.ckpt"
    recorder, module, _ = train(
        folder,
        2 * N,
        dropout=0.1,
        callbacks=(SaveAt(N, path),),
        trainer_options={"accumulate_grad_batches": accumulate},
    )
    return recorder, module, path


def resume(folder: Path, path: Path, accumulate: int = 1) -> tuple[LossRecorder, pl.LightningModule]:
    recorder, module, trainer = train(
        folder,
        2 * N,
        dropout=0.1,
        ckpt_path=str(path),
        trainer_options={"accumulate_grad_batches": accumulate},
    )
    assert trainer.global_step == 2 * N
    # An epoch's last window may be shorter, so there can be fewer micro-batches than N * accumulate.
    assert len(recorder.losses) >= N, "a resume that trains nothing proves nothing"
    return recorder, module


Whole = tuple[LossRecorder, pl.LightningModule, Path]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """The run of :func:`twice` without accumulation."""
    return twice(tmp_path_factory.mktemp("done"))


@pytest.mark.parametrize("accumulate", [1, 2])
def test_resumed_run_is_bit_for_bit_the_uninterrupted_one(
    tmp_path: Path, done: Whole, accumulate: int
) -> None:
    whole, module, path = done if accumulate == 1 else twice(tmp_path, accumulate)
    resumed, resumed_module = resume(path.parent, path, accumulate)
    assert resumed.losses == whole.losses[-len(resumed.losses) :]
    assert resumed.rates == whole.rates[-len(resumed.rates) :]
    assert same_weights(module, resumed_module)


def damage_random_state(checkpoint: dict[str, Any]) -> None:
    checkpoint["insight"]["random_states"][0]["torch"] = torch.Generator().manual_seed(99).get_state()


def damage_cursor(checkpoint: dict[str, Any]) -> None:
    state = checkpoint["LanguageModelingDataModule"]
    state["num_samples_consumed"] += 4


def damage_optimizer(checkpoint: dict[str, Any]) -> None:
    checkpoint["optimizer_states"][0]["state"] = {}


@pytest.mark.parametrize("damage", [damage_random_state, damage_cursor, damage_optimizer])
def test_planted_fault_is_noticed(tmp_path: Path, done: Whole, damage: Any) -> None:
    whole, module, path = done
    checkpoint = torch.load(path, weights_only=True)
    damage(checkpoint)
    torch.save(checkpoint, tmp_path / "damaged.ckpt")
    resumed, resumed_module = resume(path.parent, tmp_path / "damaged.ckpt")
    assert resumed.losses != whole.losses[N:]
    assert not same_weights(module, resumed_module)


class SaveAfterBatch(pl.Callback):
    """Saves once, after a number of micro-batches."""

    def __init__(self, num_batches: int, path: Path) -> None:
        self.num_batches, self.path, self.seen = num_batches, path, 0

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        self.seen += 1
        if self.seen == self.num_batches:
            trainer.save_checkpoint(self.path)


@pytest.mark.slow
@pytest.mark.parametrize("keep_gradients", [True, False])
def test_resuming_inside_an_accumulation_window(tmp_path: Path, keep_gradients: bool) -> None:
    """Two of three micro-batches are done when it is saved; without their gradients it goes wrong."""
    path = tmp_path / "inside.ckpt"
    options = {"accumulate_grad_batches": 3}
    whole, module, _ = train(
        tmp_path, 2 * N, dropout=0.1, callbacks=(SaveAfterBatch(11, path),), trainer_options=options
    )
    if not keep_gradients:
        checkpoint = torch.load(path, weights_only=True)
        checkpoint["insight"]["open_window"]["gradients"] = {}
        torch.save(checkpoint, path)
    resumed, resumed_module = resume(tmp_path, path, 3)
    assert len(resumed.losses) == len(whole.losses) - 11
    assert (resumed.losses == whole.losses[11:]) is keep_gradients
    assert same_weights(module, resumed_module) is keep_gradients


class SaveAtValidation(pl.Callback):
    """Saves when the first validation ends, and keeps what all of them measured."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.measured: list[float] = []

    def on_validation_end(self, trainer: pl.Trainer, *_: Any) -> None:
        self.measured.append(float(trainer.callback_metrics["validation/loss"]))
        if not self.path.exists():
            trainer.save_checkpoint(self.path)


def test_resuming_after_a_validation_does_not_repeat_it(tmp_path: Path) -> None:
    """Saved in the middle of an accumulation window, an epoch and a run."""
    path = tmp_path / "validated.ckpt"
    options = {
        "accumulate_grad_batches": 2,
        "val_check_interval": 9,
        "check_val_every_n_epoch": None,
        "limit_val_batches": 2,
    }
    observer = SaveAtValidation(path)
    whole, module, _ = train(tmp_path, N, dropout=0.1, callbacks=(observer,), trainer_options=options)
    observer_again = SaveAtValidation(path)
    resumed, resumed_module, _ = train(
        tmp_path,
        N,
        dropout=0.1,
        ckpt_path=str(path),
        callbacks=(observer_again,),
        trainer_options=options,
    )
    assert len(resumed.losses) == len(whole.losses) - 9
    assert resumed.losses == whole.losses[9:]
    assert len(observer.measured) >= 2
    assert observer_again.measured == observer.measured[1:]
    assert same_weights(module, resumed_module)


@pytest.mark.slow
def test_resumed_run_can_be_longer_than_planned(tmp_path: Path) -> None:
    """The stable phase of a schedule does not depend on the plan, so nothing is lost by extending it."""
    path = tmp_path / "middle.ckpt"
    whole, module, _ = train(tmp_path, 4 * N)
    train(tmp_path, 2 * N, callbacks=(SaveAt(N, path),))
    resumed, resumed_module, _ = train(tmp_path, 4 * N, ckpt_path=str(path))
    assert resumed_module.num_planned_steps == 4 * N
    assert resumed.losses == whole.losses[N:]
    assert resumed.rates == whole.rates[N:]
    assert same_weights(module, resumed_module)


def test_checkpoint_holds_tensors_and_plain_values_only(done: Whole) -> None:
    contents = torch.load(done[2], weights_only=True)
    assert contents["insight"]["format_version"] == 1


def gradients_of_one_step(folder: Path, batch_size: int, accumulate: int) -> dict[str, torch.Tensor]:
    """Gradients that reach the optimizer when targets are ignored unevenly over the rows."""
    seed_everything(3)
    data = make_data(folder, batch_size=8)
    data.setup("fit")
    whole = next(iter(data.train_dataloader()))
    whole.targets[0] = -100
    whole.targets[1, 5:] = -100
    rows = torch.arange(8).split(batch_size)
    parts = [type(whole)(whole.input_ids[r], whole.targets[r]) for r in rows]
    caught: dict[str, torch.Tensor] = {}

    class Catch(pl.Callback):
        def on_before_zero_grad(self, trainer: Any, module: Any, optimizer: Any) -> None:
            for name, p in module.named_parameters():
                if p.grad is not None and name not in caught:
                    caught[name] = p.grad.clone()

    class Fixed(type(data)):  # type: ignore[misc]
        def train_dataloader(self) -> Any:
            return DataLoader(parts, batch_size=None, collate_fn=lambda batch: batch)  # type: ignore[arg-type]

    fixed = make_data(folder, batch_size=batch_size)
    fixed.__class__ = Fixed
    trainer = make_trainer(folder, 2, accumulate_grad_batches=accumulate, callbacks=[Catch()])
    seed_everything(4)
    trainer.fit(make_module(), fixed)
    return caught


@pytest.mark.parametrize("mean_of_means", [False, True])
def test_accumulation_counts_tokens_not_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mean_of_means: bool
) -> None:
    """With the planted fault, micro-batches of few valid tokens count as much as full ones."""
    whole = gradients_of_one_step(tmp_path, batch_size=8, accumulate=1)
    add = AccumulationWindow.add
    if mean_of_means:
        monkeypatch.setattr(
            AccumulationWindow,
            "add",
            lambda self, summed: add(self, summed) * self.divisor / summed.num_valid,
        )
        monkeypatch.setattr(AccumulationWindow, "gradient_factor", lambda *_: torch.tensor(1.0))
    parts = gradients_of_one_step(tmp_path, batch_size=4, accumulate=2)
    assert whole.keys() == parts.keys()
    assert len(whole) > 0
    same = all(torch.allclose(parts[name], whole[name], rtol=1e-4, atol=1e-7) for name in whole)
    assert same is not mean_of_means


@pytest.mark.slow
def test_a_run_with_workers_that_is_resumed_at_the_end_of_an_epoch_is_the_same(tmp_path: Path) -> None:
    """Loader workers once took their seed from the generator that draws the dropout."""
    options: dict[str, Any] = {"num_workers": 2, "batch_size": 32}
    data = make_data(tmp_path, **options)
    data.prepare_data()
    data.setup("fit")
    epoch, path = len(data.train_dataloader()), tmp_path / "end_of_epoch.ckpt"
    assert 1 < epoch < 60
    arguments: dict[str, Any] = {"dropout": 0.1, "data_options": options}
    whole, module, _ = train(tmp_path, epoch + 3, callbacks=(SaveAt(epoch, path),), **arguments)
    rest, resumed, _ = train(tmp_path, epoch + 3, ckpt_path=str(path), **arguments)
    assert rest.losses == whole.losses[epoch:]
    assert same_weights(module, resumed)
