"""Optimizers that train at one point and mean another: a schedule-free one through a real training."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from save_once import SaveOnce
from tiny_training import LossRecorder, make_data, make_module, make_trainer

from insight.callbacks import AveragedWeights, EvaluationWeights
from insight.runtime.errors import ConfigError
from insight.runtime.seeding import seed_everything
from insight.training import AnyOptimizer, Constant

STEPS, HALF = 12, 6


class ScheduleFreeSGD(torch.optim.Optimizer):
    """As in a user's own package (Defazio et al. 2024, arXiv 2405.15682).

    z takes the steps, x is the average of z, and gradients are taken at y between them. The parameters are y
    while training and x in evaluation mode.
    """

    def __init__(self, params: Iterable[Any], lr: float = 0.3, beta: float = 0.9) -> None:
        super().__init__(params, {"lr": lr, "beta": beta, "num_steps": 0, "is_training": False})

    @torch.no_grad()
    def eval(self) -> None:
        for group in self.param_groups:
            if group["is_training"]:
                for p in group["params"]:
                    if "z" in self.state[p]:
                        p.lerp_(self.state[p]["z"], 1 - 1 / group["beta"])
                group["is_training"] = False

    @torch.no_grad()
    def train(self) -> None:
        for group in self.param_groups:
            if not group["is_training"]:
                for p in group["params"]:
                    if "z" in self.state[p]:
                        p.lerp_(self.state[p]["z"], 1 - group["beta"])
                group["is_training"] = True

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            assert group["is_training"], "the optimizer steps in evaluation mode"
            group["num_steps"] += 1
            weight = 1 / group["num_steps"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                z = self.state[p].setdefault("z", p.clone())
                x = p.lerp(z, 1 - 1 / group["beta"])
                z.sub_(p.grad, alpha=group["lr"])
                x.lerp_(z, weight)
                p.copy_(x.lerp(z, 1 - group["beta"]))
        return loss


class Watch(pl.Callback):
    """The weights of every validation, and x of the optimizer there, computed from y and z before it."""

    def __init__(self) -> None:
        self.averages: dict[int, list[torch.Tensor]] = {}
        self.validated: dict[int, tuple[list[torch.Tensor], float]] = {}

    def on_train_batch_end(self, trainer: Any, module: Any, *_: Any) -> None:
        optimizer = trainer.optimizers[0]
        (beta,) = {group["beta"] for group in optimizer.param_groups}
        self.averages[trainer.global_step] = [
            ((p - (1 - beta) * optimizer.state[p]["z"]) / beta).detach() for p in module.parameters()
        ]

    def on_validation_end(self, trainer: Any, module: Any) -> None:
        loss = float(trainer.callback_metrics["validation/loss"])
        self.validated[trainer.global_step] = ([p.detach().clone() for p in module.parameters()], loss)


def run(
    folder: Path, callbacks: list[pl.Callback], ckpt_path: Path | None = None
) -> tuple[LossRecorder, Watch]:
    seed_everything(1)
    recorder, watch = LossRecorder(), Watch()
    module = make_module(dropout=0.1, optimizer=AnyOptimizer(ScheduleFreeSGD))
    module.schedule = Constant()
    trainer = make_trainer(
        folder,
        STEPS,
        callbacks=[recorder, watch, EvaluationWeights(), *callbacks],
        val_check_interval=3,
        check_val_every_n_epoch=None,
        limit_val_batches=2,
    )
    path = None if ckpt_path is None else str(ckpt_path)
    trainer.fit(module, make_data(folder), ckpt_path=path, weights_only=True)
    assert trainer.global_step == STEPS
    return recorder, watch


def test_validations_and_checkpoints_are_of_the_average(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("step.ckpt", "validation.ckpt")]
    _, watch = run(tmp_path, [SaveOnce(paths[0], HALF, False), SaveOnce(paths[1], HALF, True)])
    assert sorted(watch.validated) == [3, 6, 9, 12]
    for step, (weights, _) in watch.validated.items():
        for weight, average in zip(weights, watch.averages[step], strict=True):
            torch.testing.assert_close(weight, average, rtol=1e-4, atol=1e-6)
    one, other = (torch.load(path, weights_only=True) for path in paths)
    for kind in ("state_dict", "training_weights"):
        assert one[kind].keys() == other[kind].keys()
        assert all(torch.equal(one[kind][name], other[kind][name]) for name in one[kind])
    # The optimizer's state belongs to the training weights, whenever it was saved.
    assert [group["is_training"] for group in other["optimizer_states"][0]["param_groups"]].count(False) == 0
    apart = [(one["state_dict"][n] - w).abs().max() for n, w in one["training_weights"].items()]
    assert max(apart) > 1e-4, "average and training weights are the same: nothing was tested"


@pytest.mark.parametrize("after_validation", [False, True])
@pytest.mark.parametrize("damaged", [False, True])
def test_resuming_goes_on_bit_for_bit(tmp_path: Path, after_validation: bool, damaged: bool) -> None:
    """With the planted fault, training goes on from the average."""
    path = tmp_path / "middle.ckpt"
    saved = HALF if after_validation else HALF + 1
    whole, watch = run(tmp_path, [SaveOnce(path, saved, after_validation)])
    if damaged:
        checkpoint = torch.load(path, weights_only=True)
        del checkpoint["training_weights"]
        torch.save(checkpoint, path)
    resumed, again = run(tmp_path, [], ckpt_path=path)
    assert len(resumed.losses) == STEPS - saved, "a resume that trains nothing proves nothing"
    measured, measured_again = (
        {step: loss for step, (_, loss) in one.validated.items() if step > HALF} for one in (watch, again)
    )
    assert (resumed.losses == whole.losses[saved:]) is not damaged
    assert (measured_again == measured) is not damaged


def test_saving_does_not_touch_training(tmp_path: Path) -> None:
    plain, _ = run(tmp_path, [])
    saving, _ = run(tmp_path, [SaveOnce(tmp_path / f"{step}.ckpt", step, False) for step in (2, 5, 7)])
    assert plain.losses == saving.losses


def test_two_averages_are_refused(tmp_path: Path) -> None:
    module = make_module(optimizer=AnyOptimizer(ScheduleFreeSGD))
    trainer = make_trainer(tmp_path, 2, callbacks=[AveragedWeights()])
    with pytest.raises(ConfigError, match="an average of its own"):
        trainer.fit(module, make_data(tmp_path))
