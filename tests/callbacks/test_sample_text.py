from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule
from tiny_decoder import use_decoder
from tiny_run import tiny_fit, weights

from insight.callbacks.checkpointing import RunCheckpoint
from insight.callbacks.sample_text import SampleText
from insight.generation import GenerationSettings
from insight.reporting import RunTensorBoard, Sample, append_sample, read_samples

SETTINGS = GenerationSettings(max_new_tokens=5)


@pytest.fixture(autouse=True)
def _real_network(monkeypatch: pytest.MonkeyPatch) -> None:
    use_decoder(monkeypatch, max_sequence_length=32)


class Disturbing(SampleText):
    """The planted fault: draws from the global generator."""

    def _sample(self, trainer: Any, module: LightningModule) -> None:
        super()._sample(trainer, module)
        torch.rand(1)


def same(left: LightningModule, right: LightningModule) -> bool:
    return all(torch.equal(value, weights(right)[name]) for name, value in weights(left).items())


def test_training_is_bit_for_bit_the_same_with_samples(tmp_path: Path) -> None:
    _, without = tiny_fit(tmp_path / "without")
    _, sampled = tiny_fit(tmp_path / "with", [SampleText(["ab", "c"], settings=SETTINGS)])
    assert same(without, sampled)
    assert len(read_samples(tmp_path / "with")) == 6
    assert sampled.network.training


def test_the_comparison_notices_a_sampler_that_draws_globally(tmp_path: Path) -> None:
    _, without = tiny_fit(tmp_path / "without")
    _, disturbed = tiny_fit(tmp_path / "with", [Disturbing(["ab"], settings=SETTINGS)])
    assert not same(without, disturbed)


def test_every_nth_validation_and_the_end(tmp_path: Path) -> None:
    tiny_fit(tmp_path, [SampleText(["ab"], every_n_validations=2, settings=SETTINGS)], max_steps=55)
    assert [sample.step for sample in read_samples(tmp_path)] == [20, 40, 55]


def test_a_resumed_run_drops_the_samples_of_lost_steps(tmp_path: Path) -> None:
    def callbacks() -> list[Any]:
        return [SampleText(["ab"], every_n_validations=2, settings=SETTINGS), RunCheckpoint()]

    tiny_fit(tmp_path, callbacks(), max_steps=30)
    append_sample(tmp_path / "samples.jsonl", Sample(35, "ab", "of a lost step"))
    last = tmp_path / "checkpoints/last.ckpt"
    tiny_fit(tmp_path, callbacks(), checkpoint=last, max_steps=50)
    assert [sample.step for sample in read_samples(tmp_path)] == [20, 30, 40, 50]


def test_samples_reach_tensorboard(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logger = RunTensorBoard(tmp_path)
    tiny_fit(tmp_path, [SampleText(["ab"], settings=SETTINGS)], logger=logger, max_steps=10)
    events = EventAccumulator(str(tmp_path)).Reload()
    assert any("samples/ab" in tag for tag in events.Tags()["tensors"])
