"""Reads and writes the files of a run: metrics, samples, summary, ``run.json``, early stopping."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from insight.runtime.json_files import append_record, read_object, read_records, write_object
from insight.runtime.run_folder import RunFolder


@dataclass(frozen=True)
class Curve:
    """One metric over training, NaN where it was not finite.

    ``steps`` are ascending optimizer steps, or other values of the horizontal axis; ``seconds`` are since the
    start of training.
    """

    steps: tuple[float, ...] = ()
    seconds: tuple[float, ...] = ()
    values: tuple[float, ...] = ()

    @classmethod
    def of(cls, points: Iterable[tuple[float, float]]) -> Curve:
        """A curve of steps and values whose times are not known."""
        pairs = list(points)
        return cls(tuple(x for x, _ in pairs), (math.nan,) * len(pairs), tuple(y for _, y in pairs))


def read_metrics(path: Path) -> list[dict[str, float]]:
    """The records of ``metrics.jsonl`` (or of the run folder that holds it), one per step, ascending.

    Several records of one step (of training and validation, or of a resumed run) are merged, and the later
    value counts. ``null`` becomes NaN.
    """
    path = path / "metrics.jsonl" if path.is_dir() else path
    by_step: dict[int, dict[str, float]] = {}
    for record in read_records(path):
        step = record.get("step")
        if isinstance(step, bool) or not isinstance(step, int):
            continue
        merged = by_step.setdefault(step, {})
        for name, value in record.items():
            if name == "seconds" and name in merged:
                continue  # the time of a step is that of its first record, not of a later test
            if value is None:
                merged[name] = math.nan
            elif isinstance(value, (int, float)):
                merged[name] = value
    return [by_step[step] for step in sorted(by_step)]


def curve(metrics: list[dict[str, float]], name: str) -> Curve:
    """The curve of one metric; empty if it was never logged."""
    records = [record for record in metrics if name in record]
    times = tuple(record.get("seconds", math.nan) for record in records)
    steps, values = ([record[key] for record in records] for key in ("step", name))
    return Curve(tuple(map(int, steps)), times, tuple(map(float, values)))


def read_run_info(path: Path) -> dict[str, Any]:
    """The facts in ``run.json`` (or in the run folder that holds it); empty if there is no such file."""
    return read_object(path / "run.json" if path.is_dir() else path)


def update_run_info(path: Path, *, notes: tuple[str, ...] = (), **values: Any) -> None:
    """Record facts about the run; the other facts stay, and ``notes`` are appended to those that are there.

    The report knows these keys: ``command`` (list of arguments), ``started`` and ``finished`` (ISO 8601),
    ``stop_reason``, ``insight_version`` and other ``*_version``, ``hardware``, ``data``, ``parameters``,
    ``network``, ``precision``, ``num_threads``, ``notes``. It shows others by their name.

    Raises:
        OutputError: The file cannot be written.
    """
    info = read_object(path)
    if notes:
        earlier = info.get("notes")
        info["notes"] = [*(earlier if isinstance(earlier, list) else []), *notes]
    write_object(path, {**info, **values})


@dataclass(frozen=True)
class Sample:
    """The text that the network wrote after a prompt, when it had taken ``step`` optimizer steps."""

    step: int
    prompt: str
    text: str


def append_sample(path: Path, sample: Sample) -> None:
    """Add one sample; :class:`OutputError` if the file cannot be written."""
    append_record(path, asdict(sample))


def read_samples(path: Path) -> list[Sample]:
    """The samples in ``samples.jsonl`` (or in the run folder that holds it), by step.

    If a resumed run sampled the same prompt at the same step again, the later sample is kept.
    """
    path = path / "samples.jsonl" if path.is_dir() else path
    samples: dict[tuple[int, str], Sample] = {}
    for record in read_records(path):
        step, prompt, text = record.get("step"), record.get("prompt"), record.get("text")
        if isinstance(step, int) and isinstance(prompt, str) and isinstance(text, str):
            samples[step, prompt] = Sample(step, prompt, text)
    return sorted(samples.values(), key=lambda sample: sample.step)


# Units of metrics that training logs, by the part of the name after the slash.
_UNITS = {
    "loss": "nats per token",
    "perplexity": "per token",
    "bits_per_byte": "bits per byte",
    "bleu": "of 100",
    "chrf": "of 100",
    "ter": "edits per 100 words",
    "tokens_per_second": "tokens/s",
    "matmul_share": "of the measured matmul rate",
    "seconds_left": "s",
    "resident_bytes": "bytes",
    "peak_bytes": "bytes",
}


@dataclass(frozen=True)
class Metric:
    """One measured number.

    Args:
        value: The number.
        interval: Lower and upper end of its 95% confidence interval, if one was computed.
        n: Number of bytes, tokens or cases that it was measured on, if known.
        unit: Unit of ``value``.
    """

    value: float
    interval: tuple[float, float] | None = None
    n: int | None = None
    unit: str = ""


def unit_of(name: str) -> str:
    """The unit of a metric that training logs, e.g. ``"bits per byte"``; empty if unknown."""
    return _UNITS.get(name.rpartition("/")[2], "")


def read_summary(path: Path) -> dict[str, Metric]:
    """The metrics in ``summary.json`` (or in the run folder that holds it) by name; empty without a file."""
    path = path / "summary.json" if path.is_dir() else path
    recorded = read_object(path).get("metrics")
    metrics = {}
    for name, entry in recorded.items() if isinstance(recorded, dict) else ():
        if isinstance(entry, dict):
            n, ends = entry.get("n"), entry.get("interval")
            low, high = map(_number, ends) if isinstance(ends, list) and len(ends) == 2 else (math.nan,) * 2
            metrics[name] = Metric(
                value=_number(entry.get("value")),
                interval=None if math.isnan(low) or math.isnan(high) else (low, high),
                n=n if isinstance(n, int) else None,
                unit=str(entry.get("unit") or ""),
            )
    return metrics


def update_summary(path: Path, metrics: Mapping[str, Metric]) -> None:
    """Add metrics to ``summary.json``, or replace those with the same name; the others stay."""
    write_object(path, {"metrics": {**read_summary(path), **metrics}})


def _number(value: Any) -> float:
    return float(value) if isinstance(value, (int, float)) else math.nan


@dataclass(frozen=True)
class RunRecord:
    """The files of a run; the field of a missing file is empty. ``info`` is the content of ``run.json``."""

    folder: Path
    info: dict[str, Any]
    config: str
    metrics: list[dict[str, float]]
    samples: list[Sample]
    summary: dict[str, Metric]

    @property
    def name(self) -> str:
        """``name/number`` of the run."""
        folder = self.folder.absolute()
        return f"{folder.parent.name}/{folder.name}"

    @property
    def splits(self) -> dict[str, dict[str, Any]]:
        """The facts of ``run.json`` about each split of the data: files, documents, bytes, tokens."""
        data = self.info.get("data")
        splits = data.get("splits") if isinstance(data, dict) else None
        listed = splits.items() if isinstance(splits, dict) else ()
        return {name: values for name, values in listed if isinstance(values, dict)}

    @property
    def num_steps(self) -> int:
        """Number of optimizer steps that the run recorded."""
        recorded, steps = self.info.get("steps"), (int(record["step"]) for record in self._trained)
        return recorded if isinstance(recorded, int) else max(steps, default=0)

    @property
    def training_seconds(self) -> float:
        """Duration of training and its validations by the clock of the run; 0 if unknown."""
        recorded = self.info.get("training_seconds")
        times = (record.get("seconds", 0.0) for record in self._trained)
        return float(recorded) if isinstance(recorded, (int, float)) else max(times, default=0.0)

    @property
    def seconds(self) -> float:
        """Duration of the whole run by its own clock; 0 if unknown."""
        recorded = self.info.get("seconds")
        times = [record.get("seconds", 0.0) for record in self.metrics]
        return max([*times, recorded if isinstance(recorded, (int, float)) else 0.0])

    @property
    def _trained(self) -> list[dict[str, float]]:
        """The records of training and its validations."""
        kinds = ("train/", "validation/")
        return [record for record in self.metrics if any(key.startswith(kinds) for key in record)]


def read_run_record(run: RunFolder) -> RunRecord:
    """Read all files of a run; any of them may be missing."""
    path, file = run.path, run.config_path
    config = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
    samples, summary = read_samples(path), read_summary(path)
    return RunRecord(path, read_run_info(path), config, read_metrics(path), samples, summary)


def stopping_record(
    criterion: Mapping[str, Any],
    validations: Sequence[Mapping[str, Any]],
    num_planned_steps: int | None,
    evidence: str,
    answers: Sequence[tuple[str, Mapping[str, Any]]],
    sign: float,
) -> dict[str, Any]:
    """The latest decision on early stopping with its evidence, as plain values.

    Args:
        criterion: The criterion, as a plain configuration.
        validations: The fields of every validation so far, oldest first; at least one.
        num_planned_steps: Optimizer steps of the whole run, if known.
        evidence: The sentence that explains the decision.
        answers: Class name and fields of the answer of every single criterion.
        sign: -1 if larger values of the metric are better, so that the criteria saw its negative.
    """

    def signed(value: float | None) -> float | None:
        return None if value is None else sign * value

    def turned_back(line: Mapping[str, Any]) -> dict[str, Any]:
        return {**line, **{end: [sign * value for value in line[end]] for end in ("values", "low", "high")}}

    return {
        "criterion": criterion,
        "step": validations[-1]["step"],
        "num_planned_steps": num_planned_steps,
        "evidence": evidence,
        "validations": [
            {**one, "value": signed(one["value"]), "training_value": signed(one["training_value"])}
            for one in validations
        ],
        "answers": [
            {
                "criterion": name,
                **{key: answer[key] for key in ("stop", "evidence", "figures")},
                "lines": [turned_back(line) for line in answer["lines"]],
            }
            for name, answer in answers
        ],
    }
