from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from fake_clock import FakeClock, Workload
from lightning.pytorch import Callback
from tiny_run import StopAt, TinyModule, TinySchedule, tiny_fit, weights

from insight.callbacks.checkpointing import RunCheckpoint
from insight.callbacks.throughput import TimeBudget
from insight.runtime.errors import ConfigError

ENDLESS = {"max_steps": -1, "check_val_every_n_epoch": None}


@pytest.mark.slow
@pytest.mark.parametrize("batch", [0.04, 0.1, 1.7])
@pytest.mark.parametrize("validation", [0.0, 2.0])
@pytest.mark.parametrize("decay_share", [0.2, 0.5, 1.0, None])
def test_the_run_fits_the_budget(
    tmp_path: Path, clock: FakeClock, batch: float, validation: float, decay_share: float | None
) -> None:
    start = clock.seconds
    budget = TimeBudget(60, include_startup=False)
    # Without a stable phase the plan is final before the first validation, whose time is estimated: here
    # at half of what it is.
    early = decay_share in (1.0, None)
    validation = 2 * batch if early and validation else validation
    workload = Workload(clock, batch, validation)
    trainer, module = tiny_fit(
        tmp_path,
        [budget, workload],
        val_check_interval=50,
        schedule=TinySchedule(decay_share),
        **ENDLESS,
    )
    spent = clock.seconds - start
    assert spent <= 60 * (1.06 if early and validation else 1.0)
    assert spent >= 60 * 0.95 - batch - validation
    assert trainer.global_step == budget.planned_steps == module.num_planned_steps
    assert budget.frozen
    decay_steps = (decay_share or 1.0) * trainer.global_step
    assert module.learning_rates[-1] <= 0.05 * 1.1 / decay_steps, "the decay must come to its end"


@pytest.mark.parametrize(
    "options",
    [
        {"val_check_interval": 17, "check_val_every_n_epoch": None},
        {"val_check_interval": 1.0, "check_val_every_n_epoch": 500},
    ],
)
def test_the_last_step_is_validated(tmp_path: Path, clock: FakeClock, options: dict[str, Any]) -> None:
    """Also in an epoch that is none of those to be validated."""
    steps: list[int] = []

    class Watch(Callback):
        def on_validation_end(self, trainer: Any, module: Any) -> None:
            steps.append(trainer.global_step)

    callbacks = [TimeBudget(5, False), Workload(clock), Watch()]
    trainer, _ = tiny_fit(tmp_path, callbacks, max_steps=-1, **options)
    assert steps[-1] == trainer.global_step
    assert steps.count(trainer.global_step) == 1
    assert trainer.check_val_every_n_epoch == options["check_val_every_n_epoch"]


def test_startup_counts_from_the_start_of_the_process(
    tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    import psutil

    monkeypatch.setattr(psutil.Process, "create_time", lambda self: clock.seconds - 40)
    start = clock.seconds
    tiny_fit(tmp_path, [TimeBudget(60), Workload(clock)], **ENDLESS)
    assert 18 <= clock.seconds - start <= 20
    with pytest.raises(ConfigError) as error:
        tiny_fit(tmp_path, [TimeBudget(30), Workload(clock)], **ENDLESS)
    assert (error.value.option, error.value.value) == ("seconds", 30)


def test_slow_batches_before_the_first_measurement_do_not_run_away(tmp_path: Path, clock: FakeClock) -> None:
    trainer, _ = tiny_fit(tmp_path, [TimeBudget(10, False), Workload(clock, 8.0)], **ENDLESS)
    assert trainer.global_step == 2


def test_max_steps_stays_a_limit(tmp_path: Path, clock: FakeClock) -> None:
    trainer, module = tiny_fit(tmp_path, [TimeBudget(60, False), Workload(clock)], max_steps=25)
    assert trainer.global_step == 25
    assert module.num_planned_steps == 25
    assert trainer.max_steps == 25


@pytest.mark.slow
def test_a_slower_machine_is_said_and_the_plan_kept(
    tmp_path: Path, clock: FakeClock, capsys: pytest.CaptureFixture[str]
) -> None:
    budget = TimeBudget(60, include_startup=False)
    start = clock.seconds

    def batch(step: int) -> float:
        return 0.1 if clock.seconds - start < 40 else 0.15

    trainer, _ = tiny_fit(tmp_path, [budget, Workload(clock, batch)], val_check_interval=1000, **ENDLESS)
    said = capsys.readouterr().err
    assert "50% slower" in said
    assert said.count("slower") == 1
    assert trainer.global_step == budget.planned_steps
    assert 60 < clock.seconds - start < 71


def resumed(folder: Path, clock: FakeClock, step: int, kind: type[TimeBudget]) -> tuple[TinyModule, int]:
    """Train half as fast after a stop at ``step``."""
    clock.seconds = 1000.0  # the same rounding as in the run it is compared with
    with pytest.raises(RuntimeError, match="stopped"):
        tiny_fit(
            folder,
            [kind(30, False), Workload(clock), RunCheckpoint(every_n_steps=step), StopAt(step)],
            **ENDLESS,
        )
    trainer, module = tiny_fit(
        folder,
        [kind(30, False), Workload(clock, 0.2), RunCheckpoint()],
        checkpoint=folder / "checkpoints/last.ckpt",
        **ENDLESS,
    )
    return module, trainer.global_step


@pytest.mark.slow
@pytest.mark.parametrize("step", [160, 201, 280])
def test_a_resumed_run_ends_at_the_same_step_with_the_same_rates(
    tmp_path: Path, clock: FakeClock, step: int
) -> None:
    trainer, whole = tiny_fit(
        tmp_path / "whole",
        [TimeBudget(30, False), Workload(clock), RunCheckpoint()],
        **ENDLESS,
    )
    assert 280 < trainer.global_step <= 300
    module, last_step = resumed(tmp_path / "resumed", clock, step, TimeBudget)
    assert last_step == trainer.global_step
    assert module.learning_rates == whole.learning_rates[step:]
    for name, value in weights(whole).items():
        assert torch.equal(value, weights(module)[name]), name


@pytest.mark.slow
def test_the_resume_test_notices_a_plan_that_is_not_restored(tmp_path: Path, clock: FakeClock) -> None:
    class Forgetful(TimeBudget):
        def load_state_dict(self, state_dict: dict[str, Any]) -> None:
            pass

        def on_load_checkpoint(self, *args: Any) -> None:
            pass

    trainer, _ = tiny_fit(tmp_path / "whole", [TimeBudget(30, False), Workload(clock)], **ENDLESS)
    _, last_step = resumed(tmp_path / "resumed", clock, 201, Forgetful)
    assert last_step != trainer.global_step


def test_a_run_resumed_before_the_plan_is_final_uses_what_is_left(tmp_path: Path, clock: FakeClock) -> None:
    _, last_step = resumed(tmp_path, clock, 50, TimeBudget)
    # 5 of 30 seconds are gone; 25 more at half the speed.
    assert 50 + 110 <= last_step <= 50 + 125
