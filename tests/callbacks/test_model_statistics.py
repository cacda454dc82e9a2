"""ModelStatistics: the figures are right, and training does not notice that it is looked at."""

from __future__ import annotations

import functools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from test_monitors import Collect
from tiny_run import TinyModule, tiny_fit, weights

from insight.callbacks.monitors import ModelStatistics, layers_of


def keep_output(
    kept: dict[str, torch.Tensor], name: str, layer: torch.nn.Module, inputs: Any, output: torch.Tensor
) -> None:
    kept.setdefault(name, output.detach().clone())


class Witness(Callback):
    """Keeps gradients and layer outputs of every step by means of its own, and counts foreign hooks."""

    def __init__(self) -> None:
        self.gradients: dict[int, dict[str, torch.Tensor]] = {}
        self.outputs: dict[int, dict[str, torch.Tensor]] = {}
        self.num_hooks: dict[int, int] = {}
        self._handles: list[Any] = []

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
        step = trainer.global_step
        layers = dict(module.network.named_children())
        self.num_hooks.setdefault(step, sum(len(layer._forward_hooks) for layer in layers.values()))
        kept = self.outputs.setdefault(step, {})
        for name, layer in layers.items():
            self._handles.append(layer.register_forward_hook(functools.partial(keep_output, kept, name)))

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self.gradients[trainer.global_step - 1] = {
            name: parameter.grad.detach().clone() for name, parameter in module.network.named_parameters()
        }


def expected(values: torch.Tensor) -> dict[str, float]:
    values = values.double().flatten()
    return {
        "norm": math.sqrt(float((values**2).sum())),
        "rms": math.sqrt(float((values**2).mean())),
        "max": float(values.abs().max()),
        "zeros": float((values == 0).double().mean()),
    }


def statistics(logger: Collect, kind: str) -> dict[int, dict[str, float]]:
    found = {
        step: {name: value for name, value in record.items() if name.startswith(f"{kind}/")}
        for step, record in logger.records.items()
    }
    return {step: values for step, values in found.items() if values}


def test_the_figures_are_those_of_a_witness(tmp_path: Path) -> None:
    logger, witness = Collect(), Witness()
    callbacks = [ModelStatistics(every_n_steps=5), witness]
    tiny_fit(tmp_path, callbacks, logger=logger, max_steps=12, gradient_clip_val=0.1)
    gradients, activations = statistics(logger, "gradient"), statistics(logger, "activation")
    assert list(gradients) == list(activations) == [5, 10]
    for step in gradients:
        head = torch.cat(
            [witness.gradients[step - 1][f"head.{name}"].flatten() for name in ("weight", "bias")]
        )
        found = {name: gradients[step][f"gradient/head/{name}"] for name in expected(head)}
        assert found == pytest.approx(expected(head), rel=1e-5)
        for layer in ("embedding", "dropout", "head"):
            output = witness.outputs[step - 1][layer]
            found = {name: activations[step][f"activation/{layer}/{name}"] for name in expected(output)}
            assert found == pytest.approx(expected(output), rel=1e-5)
        assert 0.05 < activations[step]["activation/dropout/zeros"] < 0.4, "a fifth is dropped"


def test_hooks_are_there_only_while_a_step_is_looked_at(tmp_path: Path) -> None:
    witness = Witness()
    _, module = tiny_fit(tmp_path, [ModelStatistics(every_n_steps=5), witness], max_steps=12)
    assert {step: count for step, count in witness.num_hooks.items() if count} == {4: 3, 9: 3}
    assert not any(layer._forward_hooks for layer in module.modules())


def test_gradients_by_role_and_accumulation(tmp_path: Path) -> None:
    logger, witness = Collect(), Witness()
    callbacks = [ModelStatistics(every_n_steps=2, by="role", activations=False), witness]
    tiny_fit(tmp_path, callbacks, logger=logger, max_steps=4, accumulate_grad_batches=3)
    found = statistics(logger, "gradient")
    assert list(found) == [2, 4]
    assert not statistics(logger, "activation")
    roles = {name.split("/")[1] for name in found[2]}
    assert roles == {"hidden", "vector"}, "the tiny network knows no other roles"
    bias = witness.gradients[3]["head.bias"]
    assert found[4]["gradient/vector/norm"] == pytest.approx(expected(bias)["norm"], rel=1e-5)


class Careless(ModelStatistics):
    """The planted fault: looking draws a random number."""

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        if self._hooks:
            torch.rand(1)


def test_training_is_bit_for_bit_the_same(tmp_path: Path) -> None:
    plain = weights(tiny_fit(tmp_path / "plain", [])[1])
    watched = weights(tiny_fit(tmp_path / "watched", [ModelStatistics(every_n_steps=3)])[1])
    assert all(torch.equal(plain[name], watched[name]) for name in plain)


def test_a_random_number_drawn_would_be_noticed(tmp_path: Path) -> None:
    plain = weights(tiny_fit(tmp_path / "plain", [])[1])
    watched = weights(tiny_fit(tmp_path / "watched", [Careless(every_n_steps=3)])[1])
    assert not all(torch.equal(plain[name], watched[name]) for name in plain)


def test_a_crash_leaves_no_hook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[TinyModule] = []

    class Failing(TinyModule):
        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            seen.append(self)
            if batch_idx == 1:
                raise RuntimeError("a fault")
            return super().training_step(batch, batch_idx)

    monkeypatch.setattr("tiny_run.TinyModule", Failing)
    with pytest.raises(RuntimeError, match="a fault"):
        tiny_fit(tmp_path, [ModelStatistics(every_n_steps=1)])
    assert not any(layer._forward_hooks for layer in seen[0].modules())


def test_a_compiled_network_is_left_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Compiled(TinyModule):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            self.network.compile(backend="eager", fullgraph=True)

    monkeypatch.setattr("tiny_run.TinyModule", Compiled)
    logger = Collect()
    callbacks = [ModelStatistics(every_n_steps=1)]
    tiny_fit(tmp_path, callbacks, logger=logger, max_steps=4, limit_val_batches=0)
    assert len(statistics(logger, "gradient")) == 4
    assert statistics(logger, "activation") == {}
    assert capsys.readouterr().err.count("runs compiled, so its activations cannot be seen") == 1


def test_a_list_of_blocks_is_taken_apart() -> None:
    network = torch.nn.Module()
    network.blocks = torch.nn.ModuleList([torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)])
    network.norm = torch.nn.LayerNorm(2)
    assert list(layers_of(network)) == ["blocks.0", "blocks.1", "norm"]
    assert {name: len(group) for name, group in ModelStatistics()._groups(network).items()} == {
        "blocks.0": 2,
        "blocks.1": 2,
        "norm": 2,
    }
