"""The gate lets an identical artefact through and stops one whose layer was damaged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_model import calibration, measured_text

from insight.checkpoints import LoadedCheckpoint
from insight.checkpoints.artifact import load_artifact
from insight.optimization import QuantizationConfig, Quantizer, quality_gate, save_artifact
from insight.optimization.measurement.quality import MeasuredText
from insight.runtime.errors import ConfigError


@pytest.fixture
def text(learned: LoadedCheckpoint, tmp_path: Path) -> MeasuredText:
    return measured_text(tmp_path / "store", learned.tokenizer)


def quality(text: MeasuredText, model: LoadedCheckpoint) -> Any:
    return text.measure(model.network, text.num_windows, 16)


@pytest.fixture
def artifact(learned: LoadedCheckpoint, tmp_path: Path) -> Path:
    quantizer = Quantizer(QuantizationConfig("int8_weight_only"))
    save_artifact(quantizer.apply(learned, calibration(learned.tokenizer)), tmp_path / "artifact")
    return tmp_path / "artifact"


def test_an_identical_artefact_passes(text: MeasuredText, artifact: Path) -> None:
    verdict = quality_gate(
        quality(text, load_artifact(artifact)), quality(text, load_artifact(artifact)), 0.0
    )
    assert verdict.passed
    assert verdict.loss == verdict.highest_loss == 0


@pytest.mark.slow
def test_a_sound_artefact_passes_against_the_original(
    text: MeasuredText, learned: LoadedCheckpoint, artifact: Path
) -> None:
    verdict = quality_gate(quality(text, learned), quality(text, load_artifact(artifact)), 0.05)
    assert verdict.passed
    assert abs(verdict.loss) < 0.05


def test_one_damaged_layer_fails(text: MeasuredText, learned: LoadedCheckpoint, artifact: Path) -> None:
    model = load_artifact(artifact)
    weight: Any = model.network.blocks[1].feed_forward.down.weight  # type: ignore[union-attr]
    with torch.no_grad():
        weight.qdata.copy_(weight.qdata.flip(0))
    verdict = quality_gate(quality(text, learned), quality(text, model), 0.05)
    assert not verdict.passed
    assert verdict.difference.low > 0


def test_the_upper_end_of_the_interval_decides(
    text: MeasuredText, learned: LoadedCheckpoint, artifact: Path
) -> None:
    before, after = quality(text, learned), quality(text, load_artifact(artifact))
    highest = quality_gate(before, after, 1.0).highest_loss
    assert quality_gate(before, after, max(0.0, highest) + 1e-9).passed
    if highest > 1e-6:
        assert not quality_gate(before, after, highest - 1e-6).passed


@pytest.mark.parametrize("bound", [-0.1, float("nan"), float("inf")])
def test_a_bound_must_be_a_share(text: MeasuredText, learned: LoadedCheckpoint, bound: float) -> None:
    measured = quality(text, learned)
    with pytest.raises(ConfigError) as error:
        quality_gate(measured, measured, bound)
    assert error.value.option == "max_quality_loss"
