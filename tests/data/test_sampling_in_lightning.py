"""Packing, mixtures and short sequences first: a resumed run goes on with the very next sample, mid-epoch."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from test_resume_in_lightning import Recorder, run

from insight.data import (
    ByteTokenizerConfig,
    LanguageModelBatch,
    LanguageModelingDataModule,
    Mixture,
    Packing,
    SamplingConfig,
    SequenceLengthWarmup,
    Windows,
)
from insight.runtime.errors import CheckpointError

Make = Callable[..., LanguageModelingDataModule]
NUM_STEPS = 12
SAMPLINGS = {
    "packing": Packing(),
    "fixed windows": Windows(random_offset=False),
    "mixture": Mixture({"long": 0.25, "short": 0.75}),
    "packed mixture": Mixture({"long": 2, "short": 1}, Packing()),
    "warm-up": SequenceLengthWarmup(2, 8, sampling=Packing()),
    "warm-up of a mixture": SequenceLengthWarmup(
        4, 8, keep_tokens=False, sampling=Mixture({"long": 1, "short": 1})
    ),
}


class EverythingRecorder(Recorder):
    """Remembers documents and positions too, and counts as the real module does."""

    def training_step(self, batch: LanguageModelBatch, batch_index: int) -> torch.Tensor:
        loss = super().training_step(batch, batch_index)
        self.seen[-1] = [
            None if value is None else value.tolist()
            for value in (batch.input_ids, batch.targets, batch.document_ids, batch.position_ids)
        ]  # type: ignore[assignment]
        return loss

    def advance(self, batch: LanguageModelBatch) -> None:
        num_samples = batch.num_samples or len(batch.input_ids)
        self.trainer.datamodule.advance(num_samples * self.trainer.world_size)


class ForgetfulRecorder(EverythingRecorder):
    """The planted fault: counts rows, of which a warm-up cuts several from one sample."""

    def advance(self, batch: LanguageModelBatch) -> None:
        self.trainer.datamodule.advance(len(batch.input_ids) * self.trainer.world_size)


@pytest.fixture
def make(tmp_path: Path) -> Make:
    for name, lengths in {"long": [90, 40, 61], "short": [3 + index % 9 for index in range(25)]}.items():
        documents = ["".join(chr(97 + (i * i + n) % 26) for i in range(n)) for n in lengths]
        lines = [json.dumps({"text": document}) + "\n" for document in documents]
        (tmp_path / f"{name}.jsonl").write_text("".join(lines))
    (tmp_path / "held_out.txt").write_text("some other text that is held out")
    paths = {name: str(tmp_path / f"{name}.jsonl") for name in ("long", "short")}

    def build(sampling: SamplingConfig, **options: object) -> LanguageModelingDataModule:
        inner = sampling.sampling if isinstance(sampling, SequenceLengthWarmup) else sampling
        settings: dict[str, object] = {
            "train_files": paths if isinstance(inner, Mixture) else list(paths.values()),
            "validation_files": str(tmp_path / "held_out.txt"),
            "tokenizer": ByteTokenizerConfig(),
            "cache_dir": str(tmp_path / "cache"),
            "sequence_length": 16,
            "batch_size": 3,
            "sampling": sampling,
        }
        return LanguageModelingDataModule(**(settings | options))  # type: ignore[arg-type]

    return build


def fit(
    data: LanguageModelingDataModule, folder: Path, checkpoint: Path | None = None, **options: object
) -> Recorder:
    settings: dict[str, object] = {"module": EverythingRecorder(), "max_epochs": -1, "max_steps": NUM_STEPS}
    return run(data, folder, checkpoint, **(settings | options))  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.parametrize("name", SAMPLINGS)
@pytest.mark.parametrize("step", [3, 5, 8])
def test_resume_gives_the_same_batches(make: Make, tmp_path: Path, name: str, step: int) -> None:
    sampling = SAMPLINGS[name]
    whole = fit(make(sampling), tmp_path / "whole")
    assert len(whole.seen) == NUM_STEPS
    assert len({json.dumps(batch) for batch in whole.seen}) == NUM_STEPS
    rest = fit(make(sampling), tmp_path / "rest", tmp_path / "whole" / f"step={step}.ckpt")
    assert rest.seen == whole.seen[step:]


@pytest.mark.parametrize("name", SAMPLINGS)
def test_planted_fault_cursor_off_by_one_batch(make: Make, tmp_path: Path, name: str) -> None:
    sampling = SAMPLINGS[name]
    whole = fit(make(sampling), tmp_path / "whole")
    path = tmp_path / "whole" / "step=5.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["LanguageModelingDataModule"]["num_samples_consumed"] += 3
    torch.save(checkpoint, path)
    rest = fit(make(sampling), tmp_path / "rest", path)
    assert rest.seen != whole.seen[5:]
    assert rest.seen[:-1] == whole.seen[6:]


def test_planted_fault_counting_the_rows_of_a_warm_up(make: Make, tmp_path: Path) -> None:
    sampling = SAMPLINGS["warm-up"]
    whole = fit(make(sampling), tmp_path / "whole", module=ForgetfulRecorder())
    rest = fit(make(sampling), tmp_path / "rest", tmp_path / "whole" / "step=5.ckpt")
    assert rest.seen != whole.seen[5:]


@pytest.mark.parametrize(
    ("saved", "now", "named"),
    [
        ("fixed windows", Windows(), "sampling="),
        ("packing", Windows(), "sampling=None (saved: "),
        ("packing", SAMPLINGS["warm-up"], "sampling="),
        ("mixture", Mixture({"long": 0.5, "short": 0.5}), "sampling="),
    ],
)
def test_another_sampling_is_refused(
    make: Make, tmp_path: Path, saved: str, now: SamplingConfig, named: str
) -> None:
    fit(make(SAMPLINGS[saved]), tmp_path / "run", max_steps=3)
    with pytest.raises(CheckpointError) as caught:
        fit(make(now), tmp_path / "other", tmp_path / "run" / "step=3.ckpt")
    assert named in str(caught.value)


def test_windows_are_counted_as_before_there_was_a_choice(make: Make) -> None:
    """Checkpoints that were saved then still fit."""
    data = make(Windows())
    data.setup("fit")
    assert data.state_dict().keys() == {
        "num_samples_consumed",
        "training_text",
        "tokenizer",
        "sequence_length",
        "global_batch_size",
        "seed",
        "fingerprint",
    }
