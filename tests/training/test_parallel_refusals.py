"""What cannot be cut over processes is refused in a line that says what to do."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest
import torch
from lightning.pytorch import LightningModule
from tiny_training import make_data, make_module, make_trainer

from insight.models import (
    MLP,
    Attention,
    DecoderConfig,
    DifferentialAttention,
    GroupedQueryAttention,
    LatentAttention,
    MixtureOfExperts,
    RelativeBias,
)
from insight.runtime.errors import CheckpointError, ConfigError
from insight.training import AdamW, LanguageModelingModule, MuonAdamW, OptimizerConfig
from insight.training.optimizers import prepare_for_resuming
from insight.training.optimizers.base import freeze_parameters
from insight.training.parallel import FSDP2Strategy, rows_by_process, shard_network, share_matrices


def processes(count: int) -> Any:
    return SimpleNamespace(size=lambda: count)


@pytest.mark.parametrize(
    ("attention", "count", "complaint"),
    [
        (GroupedQueryAttention(num_heads=4, num_key_value_heads=2), 4, "num_key_value_heads=2"),
        (GroupedQueryAttention(num_heads=4), 3, "num_heads=4"),
        (GroupedQueryAttention(num_heads=4, qk_norm="rms"), 2, "qk_norm"),
        (GroupedQueryAttention(num_heads=4, sinks=True), 2, "sinks"),
        (GroupedQueryAttention(num_heads=4, position=RelativeBias()), 2, "RelativeBias"),
        (LatentAttention(), 2, "cannot share"),
        (DifferentialAttention(num_heads=4), 2, "cannot share Differential"),
    ],
)
def test_attention_that_cannot_be_shared(attention: Attention, count: int, complaint: str) -> None:
    network = DecoderConfig(hidden_size=64, num_layers=1, attention=attention).build(50)
    with pytest.raises(ConfigError, match=complaint):
        share_matrices(network, processes(count))


@pytest.mark.parametrize(
    ("feed_forward", "complaint"),
    [(MixtureOfExperts(4, 2), "feed-forward layer of block 0"), (MLP(intermediate_size=31), "31 channels")],
)
def test_feed_forward_that_cannot_be_shared(feed_forward: Any, complaint: str) -> None:
    network = DecoderConfig(num_layers=1, feed_forward=feed_forward).build(50)
    with pytest.raises(ConfigError, match=complaint):
        share_matrices(network, processes(2))


def test_weights_that_belong_to_several_blocks() -> None:
    attention = GroupedQueryAttention(num_heads=4, position=RelativeBias())
    network = DecoderConfig(hidden_size=64, num_layers=2, attention=attention).build(50)
    with pytest.raises(ConfigError, match=r"shared by blocks\.0 and blocks\.1"):
        shard_network(network, processes(2), "32-true")


@pytest.mark.parametrize("sizes", [{"data_parallel_size": 0}, {"tensor_parallel_size": 0}])
def test_sizes_below_one(sizes: dict[str, int]) -> None:
    with pytest.raises(ConfigError) as caught:
        FSDP2Strategy(**sizes)  # type: ignore[arg-type]
    assert {caught.value.option: caught.value.value} == sizes


def test_sizes_that_are_not_the_number_of_processes(tmp_path: Any) -> None:
    trainer = make_trainer(tmp_path, 1, strategy=FSDP2Strategy(data_parallel_size=2))
    with pytest.raises(ConfigError, match="there are 1 processes"):
        trainer.fit(make_module(), make_data(tmp_path))


def test_a_precision_that_needs_a_scaler(tmp_path: Any) -> None:
    strategy = FSDP2Strategy()
    strategy.precision_plugin = SimpleNamespace(precision="16-mixed")  # type: ignore[assignment]
    with pytest.raises(ConfigError) as caught:
        strategy.setup_environment()
    assert (caught.value.option, caught.value.value) == ("trainer.precision", "16-mixed")


def test_a_compiled_network() -> None:
    module = make_module()
    module.compile_choice = "on"
    data = SimpleNamespace(sequence_length=32, vocabulary_size=50)
    with (
        patch.object(LanguageModelingModule, "data", data),
        patch.object(LanguageModelingModule, "device_mesh", processes(2)),
        pytest.raises(ConfigError) as caught,
    ):
        module.configure_model()
    assert (caught.value.option, caught.value.value) == ("compile", "on")


@pytest.mark.parametrize(
    ("other", "freeze", "said"),
    [
        (MuonAdamW(precision="float32"), (), "of another optimizer"),
        (AdamW(layer_decay=0.5), (), "other groups of parameters"),
        (AdamW(), ("blocks.0.*",), "other groups of parameters"),
    ],
)
def test_the_state_of_another_optimizer(other: OptimizerConfig, freeze: tuple[str, ...], said: str) -> None:
    config = DecoderConfig(hidden_size=32, num_layers=2)
    state = AdamW().build(config.build(50)).state_dict()
    module = LightningModule()
    module.network = config.build(50)
    freeze_parameters(module.network, freeze)
    strategy = FSDP2Strategy()
    strategy._lightning_module = module
    strategy.optimizers = [prepare_for_resuming(other.build(module.network))]
    with pytest.raises(CheckpointError, match=said):
        strategy.load_optimizer_state_dict({"optimizer_states": [state]})


def test_a_state_by_rows_and_columns() -> None:
    module = LightningModule()
    module.network = DecoderConfig(hidden_size=32, num_layers=1).build(50)
    optimizer = torch.optim.Adafactor(module.network.parameters(), lr=1e-3)
    for parameter in module.network.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    strategy = FSDP2Strategy()
    strategy._lightning_module = module
    strategy.optimizers = [optimizer]
    with pytest.raises(
        CheckpointError, match=r"Adafactor keeps 'row_var' of shape .*--trainer\.strategy ddp"
    ):
        strategy.load_optimizer_state_dict({"optimizer_states": [optimizer.state_dict()]})


def test_rows_of_each_process_lie_together() -> None:
    order = rows_by_process([4, 2], 2).tolist()
    assert order == [0, 1, 4, 2, 3, 5]
