"""Measuring while training: weights untouched, curves with intervals, a gate before best.ckpt."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule
from tiny_decoder import use_decoder
from tiny_run import TinyData, TinyLoader, tiny_fit, weights

from insight.callbacks import RunCheckpoint, SafetyEvaluation
from insight.data.loaders import LanguageModelBatch
from insight.reporting import MetricsFile, read_metrics
from insight.runtime.errors import ConfigError, DataError

SUITE = """
measures:
  - {attack: {name: injection, num_items: 3, max_new_tokens: 4}, evaluator: nonce}
  - {attack: {name: toxicity, num_samples: 2, max_new_tokens: 16}, evaluator: toxicity, max_items: 2}
  - {attack: bias, evaluator: preference, max_items: 8}
  - {attack: memorisation, evaluator: verbatim}
"""


@pytest.fixture(autouse=True)
def _real_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real decoder, with dropout, in the tiny module; data that can give no text back."""

    def no_store(self: TinyData, split: str) -> Any:
        raise DataError(f"{split}_files is not set", "")

    class LetterLoader(TinyLoader):
        """Letters in place of control characters: what is written can then be judged."""

        def __iter__(self) -> Iterator[LanguageModelBatch]:
            for batch in super().__iter__():
                yield LanguageModelBatch(97 + batch.input_ids % 26, 97 + batch.targets % 26)

    use_decoder(monkeypatch, max_sequence_length=64)
    monkeypatch.setattr("tiny_run.TinyLoader", LetterLoader)
    monkeypatch.setattr(TinyData, "store", no_store, raising=False)


@pytest.fixture
def suite(tmp_path: Path) -> str:
    path = tmp_path / "suite.yaml"
    path.write_text(SUITE, encoding="utf-8")
    return str(path)


class Disturbing(SafetyEvaluation):
    """The planted fault: draws from the global generator."""

    def _measure(self, trainer: Any, module: LightningModule) -> Any:
        torch.rand(1)
        return super()._measure(trainer, module)


def same(left: LightningModule, right: LightningModule) -> bool:
    return all(torch.equal(value, weights(right)[name]) for name, value in weights(left).items())


def test_training_is_bit_for_bit_the_same_with_it(tmp_path: Path, suite: str) -> None:
    _, without = tiny_fit(tmp_path / "without")
    _, measured = tiny_fit(tmp_path / "with", [SafetyEvaluation(suite=suite)])
    assert same(without, measured)
    assert measured.network.training


def test_the_comparison_notices_one_that_draws_globally(tmp_path: Path, suite: str) -> None:
    _, without = tiny_fit(tmp_path / "without")
    _, disturbed = tiny_fit(tmp_path / "with", [Disturbing(suite=suite)])
    assert not same(without, disturbed)


def test_curves_with_intervals_and_its_own_share(tmp_path: Path, suite: str) -> None:
    callback = SafetyEvaluation(suite=suite, every_n_validations=2)
    logger = MetricsFile(tmp_path / "metrics.jsonl")
    tiny_fit(tmp_path, [callback], max_steps=40, logger=logger)
    records = [record for record in read_metrics(tmp_path) if "safety/injection/followed" in record]
    assert [record["step"] for record in records] == [20, 40]
    for record in records:
        for figure in ("injection/followed", "toxicity/expected_maximum", "bias/preference"):
            low, value, high = (record[f"safety/{figure}{end}"] for end in ("/low", "", "/high"))
            assert low <= value <= high
            assert f"safety/{figure}/control" in record
        assert 0 < record["safety/time_share"] < 1
    # What could not be measured has no curve at all, and none at 0.
    assert not any("memorisation" in name for name in records[0])
    assert records[-1]["safety/time_share"] == pytest.approx(callback.time_share, rel=0.2)


def best_exists(folder: Path, suite: str, **options: Any) -> bool:
    tiny_fit(folder, [SafetyEvaluation(suite=suite, **options), RunCheckpoint()])
    assert (folder / "checkpoints" / "last.ckpt").is_file()
    return (folder / "checkpoints" / "best.ckpt").is_file()


@pytest.mark.slow
def test_the_gate_keeps_a_checkpoint_from_becoming_best(tmp_path: Path, suite: str) -> None:
    assert best_exists(tmp_path / "free", suite)
    assert best_exists(tmp_path / "wide", suite, gate={"toxicity/expected_maximum": 1.0})
    assert not best_exists(tmp_path / "shut", suite, gate={"toxicity/expected_maximum": 0.0})
    # Not measured is not passed.
    assert not best_exists(tmp_path / "blind", suite, gate={"memorisation/extracted": 1.0})


def test_with_a_gate_only_measured_validations_can_be_best(tmp_path: Path, suite: str) -> None:
    gate = {"toxicity/expected_maximum": 1.0}
    checkpoint = RunCheckpoint()
    tiny_fit(tmp_path, [SafetyEvaluation(2, suite, gate=gate), checkpoint], max_steps=30)
    assert checkpoint.best_step == 20


def test_a_resumed_run_goes_on_counting(tmp_path: Path, suite: str) -> None:
    def callbacks() -> list[Any]:
        return [SafetyEvaluation(2, suite), RunCheckpoint()]

    tiny_fit(tmp_path, callbacks(), max_steps=30)
    second = callbacks()
    logger = MetricsFile(tmp_path / "resumed" / "metrics.jsonl")
    tiny_fit(tmp_path, second, checkpoint=tmp_path / "checkpoints/last.ckpt", max_steps=50, logger=logger)
    measured = [record["step"] for record in read_metrics(logger.path) if "safety/time_share" in record]
    assert measured == [40]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"every_n_validations": 0}, "every_n_validations=0"),
        ({"suite": "wacth"}, "did you mean 'watch'?"),
        ({"final_suite": "bsae"}, "did you mean 'base'?"),
        ({"gate": {"memorisation/extractd": 0.1}}, "did you mean 'memorisation/extracted'?"),
        ({"gate": {"memorisation/extracted": -0.1}}, "at least 0"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        SafetyEvaluation(**options)
    assert said in str(caught.value)
