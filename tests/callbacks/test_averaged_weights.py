"""The moving average of the weights: computed by hand, measured, saved, and resumed bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from save_once import SaveOnce
from tiny_run import TinyData, TinyModule, TinySchedule, tiny_fit, weights
from torch import nn

from insight.callbacks import AveragedWeights, EvaluationWeights
from insight.runtime.errors import ConfigError

STEPS = 30


class Watch(Callback):
    """What is in the network after every step, and what every validation found there."""

    def __init__(self) -> None:
        self.start: dict[str, torch.Tensor] = {}
        self.after_step: list[dict[str, torch.Tensor]] = []
        self.validated: dict[int, tuple[dict[str, torch.Tensor], float]] = {}

    def on_train_start(self, trainer: Any, module: Any) -> None:
        self.start = weights(module)

    def on_train_batch_end(self, trainer: Any, module: Any, *_: Any) -> None:
        self.after_step.append(weights(module))

    def on_validation_end(self, trainer: Any, module: Any) -> None:
        loss = float(trainer.callback_metrics["validation/loss"])
        self.validated[trainer.global_step] = (weights(module), loss)


def averages(watch: Watch, decay: Callable[[int], float]) -> list[dict[str, torch.Tensor]]:
    """The average after each step, one number at a time in float64."""
    average = {name: value.double() for name, value in watch.start.items()}
    found = []
    for index, after in enumerate(watch.after_step):
        share = decay(index)
        average = {
            name: share * value + (1 - share) * after[name].double() for name, value in average.items()
        }
        found.append(average)
    return found


def close(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return all(torch.allclose(first[name].double(), second[name].double(), atol=1e-6) for name in second)


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("warm_up", [True, False])
def test_it_is_the_average_computed_by_hand(tmp_path: Path, warm_up: bool) -> None:
    watch = Watch()
    path = tmp_path / "between.ckpt"
    averaging = AveragedWeights(decay=0.7, warm_up=warm_up)
    _, module = tiny_fit(tmp_path, [averaging, watch, SaveOnce(path, 15, after_validation=False)])
    expected = averages(watch, lambda n: min(0.7, (1 + n) / (10 + n)) if warm_up else 0.7)
    assert len(watch.after_step) == STEPS
    assert sorted(watch.validated) == [10, 20, 30]
    for step, (found, loss) in watch.validated.items():
        assert close(found, expected[step - 1])
        assert not close(found, watch.after_step[step - 1])
        assert loss == pytest.approx(validation_loss(expected[step - 1]), rel=1e-5)
    assert close(weights(module), expected[-1])  # what a notebook has in its hands afterwards
    saved = torch.load(path, weights_only=True)
    assert close(saved["state_dict"], expected[14])
    assert same(saved["training_weights"], watch.after_step[14])


def validation_loss(state: dict[str, torch.Tensor]) -> float:
    module = TinyModule()
    module.load_state_dict(state)
    module.eval()
    with torch.no_grad():
        losses = [
            nn.functional.cross_entropy(module.logits(batch).flatten(0, 1), batch.targets.flatten())
            for batch in TinyData().val_dataloader()
        ]
    return float(torch.stack(losses).mean())


def test_training_is_not_touched(tmp_path: Path) -> None:
    plain, averaged = Watch(), Watch()
    tiny_fit(tmp_path, [plain])
    tiny_fit(tmp_path, [AveragedWeights(0.7), averaged])
    assert all(same(*pair) for pair in zip(plain.after_step, averaged.after_step, strict=True))


def nothing(checkpoint: dict[str, Any]) -> None:
    pass


def drop_average(checkpoint: dict[str, Any]) -> None:
    checkpoint["state_dict"] |= checkpoint["training_weights"]


def drop_training_weights(checkpoint: dict[str, Any]) -> None:
    checkpoint["training_weights"] = {n: checkpoint["state_dict"][n] for n in checkpoint["training_weights"]}


def drop_count(checkpoint: dict[str, Any]) -> None:
    checkpoint["callbacks"]["AveragedWeights"]["num_updates"] = 0


@pytest.mark.parametrize("after_validation", [False, True])
@pytest.mark.parametrize("damage", [nothing, drop_average, drop_training_weights, drop_count])
def test_resuming_goes_on_bit_for_bit(
    tmp_path: Path, after_validation: bool, damage: Callable[[dict[str, Any]], None]
) -> None:
    """With a planted fault in the checkpoint, it must not."""
    path, last = tmp_path / "middle.ckpt", tmp_path / "last.ckpt"
    step = 10 if after_validation else 15

    def callbacks(watch: Watch, end: Path) -> list[Callback]:
        return [AveragedWeights(decay=0.9), watch, SaveOnce(end, STEPS, after_validation=True)]

    whole, resumed = Watch(), Watch()
    tiny_fit(tmp_path, [*callbacks(whole, last), SaveOnce(path, step, after_validation)])
    checkpoint = torch.load(path, weights_only=True)
    damage(checkpoint)
    torch.save(checkpoint, path)
    again = tmp_path / "again.ckpt"
    tiny_fit(tmp_path, callbacks(resumed, again), checkpoint=path)
    assert len(resumed.after_step) == STEPS - step, "a resume that trains nothing proves nothing"
    later = [n for n in whole.validated if n > step]
    assert list(resumed.validated) == later
    ends = [torch.load(file, weights_only=True) for file in (last, again)]
    equal = [
        same(*(end["state_dict"] for end in ends)),
        same(*(end["training_weights"] for end in ends)),
        [whole.validated[n][1] for n in later] == [resumed.validated[n][1] for n in later],
        same(whole.after_step[-1], resumed.after_step[-1]),
    ]
    if damage is nothing:
        assert all(equal)
    else:
        assert not equal[0], "a lost average, its count or the training weights must show in the result"
        assert equal[3] is (damage is not drop_training_weights)


def test_a_parameter_in_two_places_is_averaged_in_both(tmp_path: Path) -> None:
    path = tmp_path / "between.ckpt"
    tied = TinyModule()
    tied.network.again = tied.network.head  # one module under two names, as tied weights are
    averaging, saving = AveragedWeights(decay=0.7), SaveOnce(path, 15, after_validation=False)
    _, module = tiny_fit(tmp_path, [averaging, saving], module=tied)
    saved = torch.load(path, weights_only=True)
    for state in (saved["state_dict"], saved["training_weights"], weights(module)):
        assert torch.equal(state["network.again.weight"], state["network.head.weight"])


def test_going_on_without_averaging_goes_on_from_the_training_weights(tmp_path: Path) -> None:
    path, whole, resumed = tmp_path / "middle.ckpt", Watch(), Watch()
    tiny_fit(tmp_path, [AveragedWeights(0.9), whole, SaveOnce(path, 10, after_validation=True)])
    _, module = tiny_fit(tmp_path, [EvaluationWeights(), resumed], checkpoint=path)
    assert len(resumed.after_step) == STEPS - 10
    assert same(resumed.after_step[-1], whole.after_step[-1])
    assert same(weights(module), whole.after_step[-1])


def test_averaging_may_begin_in_the_middle_of_a_run(tmp_path: Path) -> None:
    path, whole, resumed = tmp_path / "middle.ckpt", Watch(), Watch()
    tiny_fit(tmp_path, [EvaluationWeights(), whole, SaveOnce(path, 10, after_validation=True)])
    assert "training_weights" not in torch.load(path, weights_only=True)
    _, module = tiny_fit(tmp_path, [AveragedWeights(0.7, warm_up=False), resumed], checkpoint=path)
    assert same(resumed.start, whole.after_step[9])
    assert close(weights(module), averages(resumed, lambda n: 0.7)[-1])


def test_weights_too_narrow_to_average_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="bfloat16 would stand still"):
        tiny_fit(tmp_path, [AveragedWeights()], precision="bf16-true", schedule=TinySchedule())
