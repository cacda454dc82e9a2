"""Texts that a network wrote during training: ``samples.jsonl``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from insight.reporting.json_files import append_record, read_records


@dataclass(frozen=True)
class Sample:
    """One text.

    Args:
        step: Optimizer steps taken when it was written.
        prompt: What the network was given.
        text: What it wrote after that.
    """

    step: int
    prompt: str
    text: str


def append_sample(path: Path, sample: Sample) -> None:
    """Add one sample.

    Raises:
        OutputError: The file cannot be written.
    """
    append_record(path, {"step": sample.step, "prompt": sample.prompt, "text": sample.text})


def read_samples(path: Path) -> list[Sample]:
    """The samples by step; of two for one step and prompt (a resumed run) the later one.

    Args:
        path: The file, or the run folder that holds it.
    """
    path = path / "samples.jsonl" if path.is_dir() else path
    samples: dict[tuple[int, str], Sample] = {}
    for record in read_records(path):
        step, prompt, text = record.get("step"), record.get("prompt"), record.get("text")
        if isinstance(step, int) and isinstance(prompt, str) and isinstance(text, str):
            samples[step, prompt] = Sample(step, prompt, text)
    return sorted(samples.values(), key=lambda sample: sample.step)
