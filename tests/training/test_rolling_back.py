"""Going back takes the right file, and everything that the bad stretch has spoilt."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import lightning.pytorch as pl
import pytest
import torch
from tiny_training import train

from insight.callbacks import AveragedWeights, RunCheckpoint
from insight.runtime.errors import CheckpointError
from insight.training import Guard
from insight.training import guards as rollback

NUM_STEPS, SAVED_STEP, BAD_STEP = 12, 4, 5


class SpoiltWeights(pl.Callback):
    """Weights that are no numbers from a step on, so that every loss is none until they are put back."""

    def on_train_batch_start(self, trainer: Any, module: Any, *_: Any) -> None:
        if trainer.global_step == BAD_STEP:
            next(module.network.parameters()).data.fill_(float("nan"))


class AfterGoingBack(pl.Callback):
    """Weights, their averages and number of updates right behind the guard, at the step that it goes back."""

    def __init__(self, averaging: AveragedWeights | None = None) -> None:
        self.averaging = averaging
        self.weights: dict[str, torch.Tensor] = {}
        self.averages: dict[str, torch.Tensor] = {}
        self.num_updates = 0

    def on_before_backward(self, trainer: Any, module: Any, loss: Any) -> None:
        if trainer.global_step != BAD_STEP + 2:
            return
        parameters = dict(module.named_parameters())
        self.weights = {name: value.detach().clone() for name, value in parameters.items()}
        if self.averaging is not None:
            averages = [average.clone() for average in self.averaging._averages]
            self.averages = dict(zip(parameters, averages, strict=True))
            self.num_updates = self.averaging.num_updates


class Keep(pl.Callback):
    """Keeps what was saved at the step to go back to, which later files take the place of."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.saved: dict[str, Any] = {}

    def on_train_batch_start(self, trainer: Any, module: Any, *_: Any) -> None:
        if trainer.global_step == BAD_STEP + 1:
            self.saved = torch.load(self.path, weights_only=True)


def roll_back(folder: Path, averaging: AveragedWeights | None = None) -> tuple[AfterGoingBack, Any, Any]:
    """Two bad steps; the last good checkpoint is that of step 4."""
    folder.mkdir(exist_ok=True)
    after, keep = AfterGoingBack(averaging), Keep(folder / "saved" / "last.ckpt")
    checkpoints = RunCheckpoint(every_n_steps=SAVED_STEP, folder=str(folder / "saved"))
    averages = [] if averaging is None else [averaging]
    _, module, trainer = train(
        folder,
        NUM_STEPS,
        callbacks=(SpoiltWeights(), after, keep, *averages, checkpoints),
        trainer_options={"enable_checkpointing": True},
        guard=Guard(non_finite="roll_back", num_in_a_row=2),
    )
    assert trainer.global_step == NUM_STEPS
    assert module.step.guard.num_rolled_back == 1
    assert keep.saved["global_step"] == SAVED_STEP
    return after, module, keep.saved


def equal(found: dict[str, torch.Tensor], saved: dict[str, torch.Tensor]) -> bool:
    return bool(found) and all(torch.equal(value, saved[name]) for name, value in found.items())


def is_finite(state: dict[str, torch.Tensor]) -> bool:
    return all(bool(torch.isfinite(value).all()) for value in state.values())


@pytest.mark.parametrize("is_mended", [True, False])
def test_an_average_is_put_back_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_mended: bool) -> None:
    """With the planted fault, the average stays what the bad weights have made of it."""
    if not is_mended:
        monkeypatch.setattr(AveragedWeights, "put_back", lambda self, trainer, checkpoint: None)
    after, module, saved = roll_back(tmp_path, AveragedWeights(0.9))
    assert equal(after.weights, saved["training_weights"])
    assert not equal(after.weights, saved["state_dict"])
    assert equal(after.averages, saved["state_dict"]) is is_mended
    assert (after.num_updates == SAVED_STEP) is is_mended
    # What is measured, saved and used in the end.
    assert is_finite(dict(module.named_parameters())) is is_mended
    last = torch.load(tmp_path / "saved" / "last.ckpt", weights_only=True)
    assert is_finite(last["state_dict"]) is is_mended


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The checkpoint that a run went back to."""
    return cast("dict[str, Any]", roll_back(tmp_path_factory.mktemp("first"))[2])


@pytest.mark.parametrize(
    ("step", "is_taken"), [(SAVED_STEP - 1, False), (SAVED_STEP + 1, True), (NUM_STEPS + 100, False)]
)
def test_a_file_of_a_later_step_is_none_of_its_past(
    tmp_path: Path, saved: dict[str, Any], step: int, is_taken: bool
) -> None:
    """Of the files of the past the latest is taken, which shows that the other file could be."""
    strange = {**saved, "global_step": step}
    strange["state_dict"] = {name: torch.zeros_like(value) for name, value in saved["state_dict"].items()}
    folder = tmp_path / "second"
    (folder / "saved").mkdir(parents=True)
    torch.save(strange, folder / "saved" / "of-another-run.ckpt")
    after, _, again = roll_back(folder)
    assert equal(after.weights, again["state_dict"]) is not is_taken
    assert equal(after.weights, strange["state_dict"]) is is_taken


def test_a_torn_file_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "torn.ckpt").write_bytes(b"PK half of it")
    after, _, saved = roll_back(tmp_path)
    assert equal(after.weights, saved["state_dict"])


def test_a_file_that_cannot_be_read_ends_the_run_in_a_line(tmp_path: Path) -> None:
    """On every process: the first one hands its error on, where it used to raise alone."""
    (tmp_path / "saved").mkdir()
    torch.save({"weights": torch.zeros(2)}, tmp_path / "saved" / "strange.ckpt")
    with pytest.raises(CheckpointError, match=r"strange\.ckpt cannot be read .*move that file"):
        roll_back(tmp_path)


def test_every_process_hears_what_the_first_could_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on the second process, which looks at no file itself."""
    heard = (None, "a.ckpt cannot be read (broken)")

    class Strategy:
        def broadcast(self, sent: Any) -> Any:
            assert sent == (None, "")
            return heard

    class SecondTrainer:
        checkpoint_callback = None
        is_global_zero = False
        global_step = 7
        strategy = Strategy()

    with pytest.raises(CheckpointError, match=r"step 7: going back, a\.ckpt cannot be read"):
        rollback._put_back_last_good(SecondTrainer())
