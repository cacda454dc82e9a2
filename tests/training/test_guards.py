"""A bad step changes nothing but the counters, and the tests would notice if it did."""

from __future__ import annotations

import copy
import json
import math
import statistics
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from scipy.stats import median_abs_deviation
from tiny_training import make_data, make_trainer, same_weights, train

from insight.callbacks import RunCheckpoint
from insight.models import BalanceBias, Decoder, DecoderConfig, GroupedQueryAttention, MixtureOfExperts
from insight.runtime.errors import ConfigError, InsightError
from insight.training import Guard, LanguageModelingModule, SpikeDetector
from insight.training import guards as step_guard
from insight.training.guards import samples_of

BAD_STEP = 5
NUM_STEPS = 12
# Late enough that the loss has stopped falling steeply.
SPIKE_STEP, NUM_SPIKE_STEPS = 50, 54
STRANGE = "#$%&@~^|"


class Poison(pl.Callback):
    """Makes the loss, or only the gradient, of some steps no number."""

    def __init__(self, *steps: int, kind: str = "loss", micro_batch: int = 0) -> None:
        self.steps, self.kind, self.micro_batch = steps, kind, micro_batch
        self._is_due = False

    def on_train_start(self, trainer: Any, module: Any) -> None:
        if self.kind == "loss":
            module.network.register_forward_hook(lambda *args: args[-1] * math.nan if self._is_due else None)
        else:
            weight = next(module.network.parameters())
            weight.register_hook(lambda gradient: gradient * math.inf if self._is_due else None)

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, index: int) -> None:
        within = index % trainer.accumulate_grad_batches
        self._is_due = trainer.global_step in self.steps and within == self.micro_batch


class Snapshots(pl.Callback):
    """Weights and optimizer state at the beginning of every step, and when all is over."""

    def __init__(self) -> None:
        self.at: dict[int, tuple[dict[str, torch.Tensor], Any]] = {}

    def on_before_backward(self, trainer: Any, module: Any, loss: Any) -> None:
        self.at.setdefault(trainer.global_step, _state(trainer, module))

    def on_train_end(self, trainer: Any, module: Any) -> None:
        self.at[trainer.global_step] = _state(trainer, module)


class WithoutStep(pl.Callback):
    """Undoes one step from outside: weights and optimizer state are those of before."""

    def __init__(self, step: int) -> None:
        self.step, self._before = step, None

    def on_train_batch_start(self, trainer: Any, module: Any, *_: Any) -> None:
        if trainer.global_step == self.step:
            self._before = self._before or _state(trainer, module)

    def on_train_batch_end(self, trainer: Any, module: Any, *_: Any) -> None:
        if trainer.global_step == self.step + 1 and self._before is not None:
            module.load_state_dict(self._before[0])
            trainer.optimizers[0].load_state_dict(self._before[1])
            self._before = None


def _state(trainer: Any, module: Any) -> tuple[dict[str, torch.Tensor], Any]:
    weights = {name: value.clone() for name, value in module.state_dict().items()}
    return weights, copy.deepcopy(trainer.optimizers[0].state_dict())


def same(first: Any, second: Any) -> bool:
    """Bit for bit, NaN equal to nothing."""
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    return bool(first == second)


def optimizer_state(snapshot: tuple[Any, Any]) -> Any:
    return snapshot[1]["state"]


@pytest.mark.parametrize(
    ("kind", "accumulate", "micro_batch"),
    [("loss", 1, 0), ("gradient", 1, 0), ("loss", 2, 0), ("loss", 2, 1)],
)
def test_a_skipped_step_leaves_everything_as_it_was(
    tmp_path: Path, kind: str, accumulate: int, micro_batch: int
) -> None:
    """And the run after it is that of somebody who took the step back by hand."""
    snapshots = Snapshots()
    options = {"accumulate_grad_batches": accumulate, "log_every_n_steps": 1}
    poison = Poison(BAD_STEP, kind=kind, micro_batch=micro_batch)
    _, module, trainer = train(
        tmp_path,
        NUM_STEPS,
        callbacks=(poison, snapshots),
        trainer_options=options,
        guard=Guard(non_finite="skip"),
    )
    before, after = snapshots.at[BAD_STEP], snapshots.at[BAD_STEP + 1]
    assert same(before[0], after[0])
    assert same(optimizer_state(before), optimizer_state(after))
    assert not same(after[0], snapshots.at[BAD_STEP + 2][0])
    assert trainer.global_step == NUM_STEPS
    assert module.step.guard.num_skipped == 1
    assert float(trainer.callback_metrics["guard/num_skipped"]) == 1
    assert math.isfinite(float(trainer.callback_metrics["train/loss"]))
    by_hand, whole = WithoutStep(BAD_STEP), Snapshots()
    train(tmp_path, NUM_STEPS, callbacks=(by_hand, whole), trainer_options=options)
    assert same(snapshots.at[NUM_STEPS][0], whole.at[NUM_STEPS][0])
    assert same(optimizer_state(snapshots.at[NUM_STEPS]), optimizer_state(whole.at[NUM_STEPS]))


def test_a_skipped_step_moves_no_balance_of_experts(tmp_path: Path) -> None:
    """The bias of a router is no weight of the optimizer, and follows every step that is taken."""
    mixture = MixtureOfExperts(8, 2, intermediate_size=16, balance=BalanceBias(0.01))
    attention = GroupedQueryAttention(num_heads=4, num_key_value_heads=2)
    network = DecoderConfig(32, 2, attention=attention, feed_forward=mixture, max_sequence_length=64)
    module = LanguageModelingModule(network, compile="off", guard=Guard(non_finite="skip"))
    snapshots = Snapshots()
    trainer = make_trainer(tmp_path, 4, callbacks=[Poison(2), snapshots])
    trainer.fit(module, make_data(tmp_path))
    biases = [
        {name: value for name, value in snapshots.at[step][0].items() if "choice_bias" in name}
        for step in range(5)
    ]
    assert biases[0]
    assert [same(biases[step], biases[step + 1]) for step in range(4)] == [False, False, True, False]


def test_a_guard_that_keeps_the_gradient_would_be_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Decoder, "zero_grad", lambda self: None)
    snapshots = Snapshots()
    with pytest.raises(InsightError, match="step in a row"):
        train(
            tmp_path,
            NUM_STEPS,
            callbacks=(Poison(BAD_STEP), snapshots),
            guard=Guard(non_finite="skip", num_in_a_row=3),
        )
    after = snapshots.at[BAD_STEP + 1]
    assert not same(snapshots.at[BAD_STEP][0], after[0])
    assert any(not torch.isfinite(value).all() for value in after[0].values())


@pytest.mark.parametrize(
    ("kind", "problem"), [("loss", "the loss is nan"), ("gradient", "norm of the gradient")]
)
def test_without_a_guard_the_run_stops_at_the_step(tmp_path: Path, kind: str, problem: str) -> None:
    with pytest.raises(InsightError, match=f"{problem}.* at step {BAD_STEP}: .*guard.non_finite skip"):
        train(
            tmp_path,
            NUM_STEPS,
            callbacks=(Poison(BAD_STEP, kind=kind),),
            trainer_options={"log_every_n_steps": 1},
        )


def test_skipping_ends_when_nothing_else_happens(tmp_path: Path) -> None:
    with pytest.raises(InsightError, match=r"at step 7, the 3\. such step in a row"):
        train(
            tmp_path,
            NUM_STEPS,
            callbacks=(Poison(*range(BAD_STEP, NUM_STEPS)),),
            guard=Guard(non_finite="skip", num_in_a_row=3),
        )


def roll_back(folder: Path, every_n_steps: int, *steps: int, **options: Any) -> tuple[Snapshots, Any, Any]:
    folder.mkdir(exist_ok=True)
    snapshots = Snapshots()
    checkpoints = RunCheckpoint(every_n_steps=every_n_steps, folder=str(folder / "saved"), **options)
    _, module, trainer = train(
        folder,
        NUM_STEPS,
        callbacks=(Poison(*steps), snapshots, checkpoints),
        trainer_options={"enable_checkpointing": True},
        guard=Guard(non_finite="roll_back", num_in_a_row=2),
    )
    return snapshots, module, trainer


@pytest.mark.parametrize("goes_back", [True, False])
def test_bad_steps_in_a_row_put_the_last_checkpoint_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], goes_back: bool
) -> None:
    """With the planted fault, it only says so. Steps 5 and 6 are bad, the last checkpoint is of step 4."""
    if not goes_back:
        monkeypatch.setattr(step_guard, "_put_back_last_good", lambda trainer: Path("nowhere"))
    snapshots, module, trainer = roll_back(tmp_path, 4, 5, 6)
    assert same(snapshots.at[4][0], snapshots.at[7][0]) is goes_back
    assert same(optimizer_state(snapshots.at[4]), optimizer_state(snapshots.at[7])) is goes_back
    assert not same(snapshots.at[4][0], snapshots.at[5][0])
    assert "those of" in capsys.readouterr().err
    # The data and the step go on.
    assert trainer.global_step == NUM_STEPS
    assert trainer.datamodule.state_dict()["num_samples_consumed"] == 4 * NUM_STEPS
    assert (module.step.guard.num_rolled_back, module.step.guard.num_skipped) == (1, 2)
    assert not same(snapshots.at[7][0], snapshots.at[8][0])


def test_bad_steps_after_going_back_end_the_run(tmp_path: Path) -> None:
    with pytest.raises(InsightError, match=r"at step 8.*although weights and optimizer had been put back"):
        roll_back(tmp_path, 4, 5, 6, 7, 8)


def test_there_has_to_be_a_checkpoint_from_before(tmp_path: Path) -> None:
    """The one of step 6 was saved between two bad steps, in place of the one of step 3."""
    with pytest.raises(InsightError, match="step 7: there is no checkpoint from before"):
        roll_back(tmp_path / "one", 3, 5, 6)
    snapshots, module, _ = roll_back(tmp_path / "more", 3, 5, 6, keep_every_n_steps=3)
    assert same(snapshots.at[3][0], snapshots.at[7][0])
    assert module.step.guard.num_rolled_back == 1


class StrangeText(pl.Callback):
    """Text that the network has never seen, in one step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, index: int) -> None:
        if trainer.global_step == self.step:
            symbols = torch.tensor(list(STRANGE.encode()))
            drawn = torch.randint(
                len(symbols), batch.input_ids.shape, generator=torch.Generator().manual_seed(1)
            )
            batch.input_ids[:] = symbols[drawn]
            batch.targets[:] = symbols[drawn.flip(0)]


def spiked(folder: Path, action: Any, **options: Any) -> tuple[Snapshots, Any, Any]:
    snapshots = Snapshots()
    guard = Guard(spikes=SpikeDetector(window=16, min_losses=8, action=action))
    _, module, trainer = train(
        folder,
        NUM_SPIKE_STEPS,
        callbacks=(StrangeText(SPIKE_STEP), snapshots),
        trainer_options={"log_every_n_steps": 1},
        guard=guard,
        **options,
    )
    return snapshots, module, trainer


@pytest.mark.parametrize("action", ["log", "skip"])
def test_a_loss_far_off_is_written_down_with_its_documents(
    tmp_path: Path, action: str, capsys: pytest.CaptureFixture[str]
) -> None:
    snapshots, module, _ = spiked(tmp_path, action)
    assert module.step.guard.num_spikes == 1
    assert module.step.guard.num_skipped == (action == "skip")
    assert same(snapshots.at[SPIKE_STEP][0], snapshots.at[SPIKE_STEP + 1][0]) is (action == "skip")
    record = json.loads((tmp_path / "suspicious_batches.jsonl").read_text())
    assert (record["step"], record["is_taken"]) == (SPIKE_STEP, action == "log")
    assert record["loss"] > 5
    assert [sample["sample"] for sample in record["samples"]] == [200, 201, 202, 203]
    heads = [head for sample in record["samples"] for head in sample["documents"]]
    assert len(heads) == 4
    assert set("".join(heads)) <= set(STRANGE)
    said = capsys.readouterr().err
    assert "guard: the loss is" in said
    assert "samples 200 to 203" in said


def test_samples_are_those_of_the_data(tmp_path: Path) -> None:
    """The numbers lead back to the text, in a row of two documents too."""
    data = make_data(tmp_path)
    data.setup("fit")
    batches = [batch for batch, _ in zip(data.train_dataloader(), range(3), strict=False)]
    end = data.tokenizer.end_of_text_id
    batches[2].input_ids[1, 20] = end
    for _ in batches:
        data.advance(4)
    rows = samples_of(batches[1:], data, 0, 1)
    assert [row["sample"] for row in rows] == list(range(4, 12))
    for row, ids in zip(rows[:4], batches[1].input_ids, strict=True):
        assert row["documents"] == [data.tokenizer.decode(ids)]
    first, second = rows[5]["documents"]
    assert first == data.tokenizer.decode(batches[2].input_ids[1, :20])
    assert second == data.tokenizer.decode(batches[2].input_ids[1, 21:])


class SaveAt(pl.Callback):
    def __init__(self, step: int, path: Path) -> None:
        self.step, self.path = step, path

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        if trainer.global_step == self.step and not self.path.exists():
            trainer.save_checkpoint(self.path)


@pytest.mark.slow
@pytest.mark.parametrize("keeps_memory", [True, False])
def test_a_resumed_run_judges_as_the_whole_one(tmp_path: Path, keeps_memory: bool) -> None:
    """With the planted fault, the losses before the checkpoint are forgotten, and the spike passes."""
    path = tmp_path / "middle.ckpt"
    guard = Guard(spikes=SpikeDetector(window=16, min_losses=8, action="skip"))
    options: dict[str, Any] = {"guard": guard, "callbacks": (StrangeText(SPIKE_STEP), SaveAt(47, path))}
    _, whole, _ = train(tmp_path, NUM_SPIKE_STEPS, **options)
    if not keeps_memory:
        checkpoint = torch.load(path, weights_only=True)
        del checkpoint["insight"]["guard"]
        torch.save(checkpoint, path)
    recorder, resumed, _ = train(tmp_path, NUM_SPIKE_STEPS, ckpt_path=str(path), **options)
    assert len(recorder.losses) == NUM_SPIKE_STEPS - 47
    assert (resumed.step.guard.state_dict() == whole.step.guard.state_dict()) is keeps_memory
    assert same_weights(whole, resumed) is keeps_memory


def test_the_score_is_the_modified_z_score() -> None:
    losses = torch.rand(50, generator=torch.Generator().manual_seed(0)).tolist()
    median, deviation = statistics.median(losses), median_abs_deviation(losses, scale="normal")
    expected = (3.0 - median) / deviation
    assert SpikeDetector().score(3.0, losses) == pytest.approx(expected, rel=1e-3)
    assert SpikeDetector(min_losses=51).score(3.0, losses) is None
    assert SpikeDetector().score(2.0, [1.0] * 40) == pytest.approx(1000)
    assert SpikeDetector().score(0.0, [0.0] * 40) == 0


def test_spikes_do_not_hide_the_next_one() -> None:
    """They would from a score of mean and standard deviation."""
    calm = [3 + 0.1 * math.sin(7 * index) for index in range(40)]
    losses = torch.tensor([*calm, *[60.0] * 10])
    plain = (9 - losses.mean()) / losses.std()
    assert float(plain) < 1
    score = SpikeDetector().score(9.0, losses.tolist())
    assert score is not None
    assert score > 20


@pytest.mark.parametrize(
    ("make", "option", "value"),
    [
        (lambda: Guard(non_finite="ignore"), "guard.non_finite", "ignore"),  # type: ignore[arg-type]
        (lambda: Guard(num_in_a_row=0), "guard.num_in_a_row", 0),
        (lambda: SpikeDetector(window=4), "window", 4),
        (lambda: SpikeDetector(min_losses=1), "min_losses", 1),
        (lambda: SpikeDetector(threshold=0.0), "threshold", 0.0),
        (lambda: SpikeDetector(action="drop"), "action", "drop"),  # type: ignore[arg-type]
    ],
)
def test_wrong_values_are_refused(make: Any, option: str, value: object) -> None:
    with pytest.raises(ConfigError) as caught:
        make()
    assert (caught.value.option, caught.value.value) == (option, value)
