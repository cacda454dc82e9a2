"""A run that goes on for longer than it was planned."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_resume import SaveAt
from tiny_training import LossRecorder, make_data, make_module, make_trainer

from insight.runtime.seeding import seed_everything
from insight.training import LanguageModelingModule, ScheduleConfig, WarmupCosine, WarmupStableDecay
from insight.training import module as training_module

PLANNED, LONGER, SAVED = 16, 32, 8
TOKENS_PER_STEP = 4 * 32  # of tiny_training's data


def run(
    folder: Path, schedule: ScheduleConfig, max_steps: int, save_at: int = 0, ckpt_path: Path | None = None
) -> LossRecorder:
    seed_everything(1)
    recorder, callbacks = LossRecorder(), []
    module: LanguageModelingModule = make_module()
    module.schedule = schedule
    path = folder / f"{save_at}.ckpt"
    if save_at:
        callbacks.append(SaveAt(save_at, path))
    trainer = make_trainer(folder, max_steps, callbacks=[recorder, *callbacks])
    trainer.fit(
        module, make_data(folder), ckpt_path=None if ckpt_path is None else str(ckpt_path), weights_only=True
    )
    assert trainer.global_step == max_steps
    return recorder


@pytest.mark.slow
@pytest.mark.parametrize(
    "schedule",
    [
        WarmupStableDecay(3, 0.5),
        WarmupStableDecay("300 tokens", f"{PLANNED // 2 * TOKENS_PER_STEP} tokens"),
    ],
    ids=["shares", "tokens"],
)
def test_the_plateau_goes_on(
    tmp_path: Path, schedule: ScheduleConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    """Saved where the decay was about to begin; losses and rates are those of a run planned longer."""
    whole = run(tmp_path, schedule, LONGER)
    first = run(tmp_path, schedule, PLANNED, save_at=SAVED)
    capsys.readouterr()
    resumed = run(tmp_path, schedule, LONGER, ckpt_path=tmp_path / f"{SAVED}.ckpt")
    assert first.rates[:SAVED] == whole.rates[:SAVED]
    assert len(resumed.losses) == LONGER - SAVED
    assert resumed.rates == whole.rates[SAVED:]
    assert resumed.losses == whole.losses[SAVED:]
    assert "learning rate" not in capsys.readouterr().err
    # The plateau, and not a decay that happens to be the same: the old plan's rates fall here.
    assert resumed.rates[: PLANNED - SAVED] == [whole.rates[SAVED]] * (PLANNED - SAVED)
    assert first.rates[SAVED + 1 :] != resumed.rates[1 : PLANNED - SAVED]


def test_a_plan_that_is_not_renewed_would_be_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    schedule = WarmupStableDecay(3, 0.5)
    first = run(tmp_path, schedule, PLANNED, save_at=SAVED)
    monkeypatch.setattr(training_module, "steps_of_limits", lambda trainer: None)
    resumed = run(tmp_path, schedule, LONGER, ckpt_path=tmp_path / f"{SAVED}.ckpt")
    assert resumed.rates[: PLANNED - SAVED] == first.rates[SAVED:]


@pytest.mark.parametrize(
    ("schedule", "settled"), [(WarmupStableDecay(3, 0.5), SAVED), (WarmupCosine(3), 3)], ids=["wsd", "cosine"]
)
def test_a_decay_that_had_begun_is_said(
    tmp_path: Path, schedule: ScheduleConfig, settled: int, capsys: pytest.CaptureFixture[str]
) -> None:
    run(tmp_path, schedule, PLANNED, save_at=SAVED + 4)
    capsys.readouterr()
    resumed = run(tmp_path, schedule, LONGER, ckpt_path=tmp_path / f"{SAVED + 4}.ckpt")
    assert len(resumed.losses) == LONGER - SAVED - 4
    said = capsys.readouterr().err
    assert f"the run had {PLANNED} planned steps and has {LONGER} now" in said
    assert f"depends on that from step {settled} on" in said
    before, now = (schedule.multiplier(SAVED + 4, steps) for steps in (PLANNED, LONGER))
    assert f"at {now:.0%} of the full rate, not {before:.0%}" in said


def test_an_unchanged_plan_says_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    schedule = WarmupStableDecay(3, 0.5)
    run(tmp_path, schedule, PLANNED, save_at=SAVED + 4)
    capsys.readouterr()
    run(tmp_path, schedule, PLANNED, ckpt_path=tmp_path / f"{SAVED + 4}.ckpt")
    assert "planned steps" not in capsys.readouterr().err


def test_accumulation_counts_in_the_tokens_of_a_step(tmp_path: Path) -> None:
    schedule = WarmupStableDecay(f"{8 * TOKENS_PER_STEP} tokens", 0)
    recorder = LossRecorder()
    module = make_module()
    module.schedule = schedule
    trainer = make_trainer(tmp_path, 10, callbacks=[recorder], accumulate_grad_batches=2)
    trainer.fit(module, make_data(tmp_path))
    steps = recorder.rates[1::2]  # recorded at every micro-batch
    assert [rate / steps[-1] for rate in steps[:6]] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1, 1])
