"""Under float16 the loss is scaled; norm, clipping and guard see the gradients of the loss itself."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, cast

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.plugins.precision import MixedPrecision
from tiny_training import LossRecorder, train
from torch import nn

from insight.training import AdamW, Guard, LanguageModelingModule, MuonAdamW, OptimizerConfig
from insight.training.step import gradient_norm

NUM_STEPS = 12
BAD_STEP = 5
LIMIT = 0.5
OPTIMIZERS: dict[str, OptimizerConfig] = {"adamw": AdamW(), "muon": MuonAdamW(precision="float32")}


class Gradients(pl.Callback):
    """The norms of a run, before clipping and after, and what one step did to the weights.

    Args:
        bad_step: Step whose loss is no number.
    """

    def __init__(self, bad_step: int | None = None) -> None:
        self.bad_step = bad_step
        self.logged: list[float] = []
        self.clipped: list[float] = []
        self.moved: list[bool] = []
        self._before: list[torch.Tensor] = []
        self._is_bad = False

    def on_train_start(self, trainer: Any, module: Any) -> None:
        module.network.register_forward_hook(lambda *args: args[-1] * math.nan if self._is_bad else None)

    def on_train_batch_start(self, trainer: Any, module: Any, *_: Any) -> None:
        self._is_bad = trainer.global_step == self.bad_step
        self._before = [parameter.detach().clone() for parameter in module.network.parameters()]

    def on_train_batch_end(self, trainer: Any, module: Any, *_: Any) -> None:
        parameters = list(module.network.parameters())
        self.logged.append(float(trainer.callback_metrics["train/gradient_norm"]))
        self.clipped.append(float(gradient_norm(cast("list[nn.Parameter]", parameters))))
        pairs = zip(parameters, self._before, strict=True)
        self.moved.append(not all(torch.equal(after, before) for after, before in pairs))


def trained(
    folder: Path, optimizer: str, *, scaled: bool, bad_step: int | None = None
) -> tuple[LossRecorder, Gradients, Any]:
    options: dict[str, Any] = {"gradient_clip_val": LIMIT, "log_every_n_steps": 1}
    if scaled:
        # A scale at which nothing overflows: every step is taken.
        options["plugins"] = MixedPrecision(
            "16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=2.0**10)
        )
    gradients = Gradients(bad_step)
    guard = Guard() if bad_step is None else Guard(non_finite="skip")
    recorder, module, trainer = train(
        folder,
        NUM_STEPS,
        callbacks=(gradients,),
        trainer_options=options,
        optimizer=OPTIMIZERS[optimizer],
        guard=guard,
    )
    assert trainer.global_step == NUM_STEPS
    return recorder, gradients, module


@pytest.fixture(scope="module")
def unscaled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[LossRecorder, Gradients, Any]]:
    """The runs without a scale, which no fault here changes."""
    folder = tmp_path_factory.mktemp("unscaled")
    return {name: trained(folder, name, scaled=False) for name in OPTIMIZERS}


def leave_the_scale_to_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """As fused optimizers of torch ask for."""
    configure = LanguageModelingModule.configure_optimizers

    def planted(self: LanguageModelingModule) -> torch.optim.Optimizer:
        optimizer: Any = configure(self)
        optimizer._step_supports_amp_scaling = True
        return cast(torch.optim.Optimizer, optimizer)

    monkeypatch.setattr(LanguageModelingModule, "configure_optimizers", planted)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_norms_and_losses_are_those_without_a_scale(
    tmp_path: Path, unscaled: dict[str, tuple[LossRecorder, Gradients, Any]], optimizer: str
) -> None:
    wide, expected, _ = unscaled[optimizer]
    narrow, found, _ = trained(tmp_path, optimizer, scaled=True)
    assert all(found.moved)
    assert wide.losses[-1] < wide.losses[0] - 0.5
    assert narrow.losses == pytest.approx(wide.losses, abs=0.05)
    assert narrow.losses != wide.losses
    assert max(expected.logged) > 2 * LIMIT, "something has to be clipped"
    assert found.logged == pytest.approx(expected.logged, rel=0.1)
    assert found.clipped == pytest.approx([min(norm, LIMIT) for norm in found.logged], rel=1e-3)


def test_gradients_with_the_scale_in_them_would_be_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unscaled: dict[str, tuple[LossRecorder, Gradients, Any]]
) -> None:
    leave_the_scale_to_the_step(monkeypatch)
    _, expected, _ = unscaled["adamw"]
    _, found, _ = trained(tmp_path, "adamw", scaled=True)
    assert min(found.logged) > 100 * max(expected.logged)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_step_that_is_left_out_is_survived(tmp_path: Path, optimizer: str) -> None:
    _, gradients, module = trained(tmp_path, optimizer, scaled=True, bad_step=BAD_STEP)
    assert module.step.guard.num_skipped == 1
    assert gradients.moved == [step != BAD_STEP for step in range(NUM_STEPS)]


def test_a_scaler_that_saw_no_gradient_would_be_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_the_scale_to_the_step(monkeypatch)
    with pytest.raises(AssertionError, match="No inf checks"):
        trained(tmp_path, "adamw", scaled=True, bad_step=BAD_STEP)
