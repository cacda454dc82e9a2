"""Optimizers, schedules, averaging and freezing through YAML and the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from command_line import TINY, Outcome

from insight.checkpoints import load_checkpoint
from insight.checkpoints.artifact import load_model

FIT = ("fit", "--config", "tiny.yaml")

LION = '''
import torch


class Lion(torch.optim.Optimizer):
    """Signs of a momentum (Chen et al. 2023)."""

    def __init__(self, params, lr: float = 1e-3, beta: float = 0.95, weight_decay: float = 0.0):
        super().__init__(params, {"lr": lr, "beta": beta, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure=None):
        with torch.enable_grad():
            loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                momentum = self.state[parameter].setdefault("momentum", torch.zeros_like(parameter))
                momentum.lerp_(parameter.grad, 1 - group["beta"])
                parameter.add_(momentum.sign(), alpha=-group["lr"])
        return loss
'''


def configured(workplace: Path, model: str, callbacks: str = "[]") -> None:
    """``tiny.yaml`` with more about the model."""
    config = yaml.safe_load(TINY)
    config["model"] |= yaml.safe_load(model)
    config["trainer"]["callbacks"] += yaml.safe_load(callbacks)
    (workplace / "tiny.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")


def states(path: Path) -> tuple[dict[str, object], list[dict[str, object]]]:
    checkpoint = torch.load(path, weights_only=True)
    return checkpoint, checkpoint["optimizer_states"][0]["param_groups"]


@pytest.mark.slow
def test_a_class_of_torch_named_directly(insight: Callable[..., Outcome], workplace: Path) -> None:
    """With the command line over the file, saved, and resumed from what was saved."""
    configured(
        workplace,
        "optimizer: {class_path: torch.optim.RAdam, init_args: {lr: 0.001, weight_decay: 0.1}}\n"
        "schedule: {class_path: WarmupCosine, init_args: {warmup_steps: 50%}}",
    )
    outcome = insight(*FIT, "--model.optimizer.init_args.lr=0.002", "--trainer.max_steps=2")
    assert outcome.code == 0, outcome.err
    run = workplace / "runs/tiny/1"
    _, groups = states(run / "checkpoints/last.ckpt")
    assert {group["role"]: group["weight_decay"] for group in groups} == {
        "embedding": 0.0,
        "hidden": 0.1,
        "head": 0.1,
        "vector": 0.0,
    }
    assert {group["initial_lr"] for group in groups} == {0.002}
    assert any("hidden" in line and "0.002" in line for line in outcome.err.splitlines())
    info = json.loads((run / "run.json").read_text())
    assert info["parameter_groups"]["embedding"].endswith("learning rate 0.002, weight decay 0")
    resumed = insight("fit", "--resume", str(run), "--trainer.max_steps=4")
    assert resumed.code == 0, resumed.err
    checkpoint, _ = states(run / "checkpoints/last.ckpt")
    assert checkpoint["global_step"] == 4


@pytest.mark.slow
def test_a_class_of_an_own_package_with_own_rates(
    insight: Callable[..., Outcome], workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (workplace / "my_optimizers.py").write_text(LION, encoding="utf-8")
    monkeypatch.syspath_prepend(workplace)
    configured(
        workplace,
        "optimizer:\n"
        "  class_path: AnyOptimizer\n"
        "  init_args:\n"
        "    optimizer: {class_path: my_optimizers.Lion, init_args: {lr: 0.001}}\n"
        "    embedding_learning_rate: 0.004\n"
        "    layer_decay: 0.5\n"
        "freeze: [norm]\n",
    )
    outcome = insight(*FIT)
    assert outcome.code == 0, outcome.err
    _, groups = states(workplace / "runs/tiny/1/checkpoints/last.ckpt")
    rates = {group["role"]: group["initial_lr"] for group in groups if group["role"] != "vector"}
    assert rates == pytest.approx({"head": 0.001, "hidden": 0.0005, "embedding": 0.001})
    assert any(line.split()[1] == "frozen" for line in outcome.err.splitlines() if len(line.split()) > 1)


@pytest.mark.slow
def test_averaged_weights_are_what_everything_uses(insight: Callable[..., Outcome], workplace: Path) -> None:
    configured(workplace, "z_loss: 0.0", "[{class_path: AveragedWeights, init_args: {decay: 0.5}}]")
    assert insight(*FIT, "--model.label_smoothing=0.1").code == 0
    run = workplace / "runs/tiny/1"
    path = run / "checkpoints/best.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    averaged, trained = checkpoint["state_dict"], checkpoint["training_weights"]
    assert any(not torch.equal(averaged[name], value) for name, value in trained.items())
    for network in (load_checkpoint(path).network, load_model(path).network):
        for name, value in network.state_dict().items():
            assert torch.equal(value, averaged[f"network.{name}"])
    measured = insight("validate", "--checkpoint", str(path), "--json=true")
    assert measured.code == 0, measured.err
    best = json.loads((run / "summary.json").read_text())["metrics"]["best/validation/bits_per_byte"]["value"]
    assert json.loads(measured.out)["validation/bits_per_byte"] == pytest.approx(best, rel=1e-5)
    assert insight("generate", "--checkpoint", str(run), "It is", "--max_new_tokens=3").code == 0


@pytest.mark.slow
@pytest.mark.parametrize("command", ["fit", "check"])
@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--model.optimizer=torch.optim.RAdma"], ["model.optimizer", "RAdma"]),
        (["--model.optimizer=MuonAdmaW"], ["model.optimizer=MuonAdmaW", "did you mean 'MuonAdamW'?"]),
        (["--model.optimizer.learning_rat=1"], ["learning_rat", "did you mean"]),
        (["--model.optimizer.learning_rate=fast"], ["learning_rate=fast", "a number"]),
        (["--model.optimizer=torch.optim.SGD", "--model.optimizer.lr=-1"], ["SGD", "learning rate"]),
        (["--model.optimizer=torch.optim.LBFGS"], ["LBFGS", "parameter groups"]),
        (["--model.optimizer.layer_decay=2"], ["layer_decay=2", "at most 1"]),
        (["--model.freeze=[embeding]"], ["model.freeze=embeding", "did you mean 'embedding'?"]),
        (["--model.freeze=['*']"], ["model.freeze=*", "nothing is left to train"]),
        (["--model.label_smoothing=1"], ["label_smoothing=1"]),
        (["--model.schedule.warmup_steps=soon"], ["warmup_steps=soon", "5%"]),
        (["--model.schedule.warmup_steps=3"], ["warmup_steps=3 (3 steps)", "run of 4 steps", "shorten them"]),
        (["--model.schedule.warmup_steps=75%"], ["warmup_steps=75% (3 steps)", "decay_share=0.5 (2 steps)"]),
    ],
)
def test_a_mistake_is_one_line_with_a_remedy(
    insight: Callable[..., Outcome], workplace: Path, command: str, options: list[str], said: list[str]
) -> None:
    outcome = insight(command, "--config", "tiny.yaml", *options)
    assert outcome.code == 2, outcome.err
    for words in said:
        assert words in outcome.error_line
    assert not (workplace / "runs").exists()


@pytest.mark.slow
def test_lengths_in_tokens_or_epochs_are_judged_before_the_first_step(
    insight: Callable[..., Outcome], workplace: Path
) -> None:
    outcome = insight(*FIT, "--model.schedule.warmup_steps=5k tokens")
    assert outcome.code == 2, outcome.err
    assert "run of 4 steps" in outcome.error_line
    assert not (workplace / "runs").exists()
    assert insight(*FIT, "--model.schedule.warmup_steps=128 tokens", "--trainer.max_steps=4").code == 0


@pytest.mark.slow
def test_resuming_with_another_optimizer_is_refused(insight: Callable[..., Outcome], workplace: Path) -> None:
    assert insight(*FIT).code == 0
    outcome = insight("fit", "--resume", "runs/tiny/1", "--trainer.max_steps=6", "--model.optimizer=AdamW")
    assert outcome.code == 2, outcome.err
    assert "of another optimizer" in outcome.error_line
    frozen = insight("fit", "--resume", "runs/tiny/1", "--trainer.max_steps=6", "--model.freeze=[embedding]")
    assert "other groups of parameters" in frozen.error_line
