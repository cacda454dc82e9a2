"""Setup of a run: its data, network, machine, command and history."""

from __future__ import annotations

import math
import shlex
import statistics
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

import insight
from insight.reporting.run_files import RunRecord, curve
from insight.reporting.sections.section import Fact, Section, facts_of, readable, short_class, shown
from insight.runtime.formats import format_bytes, format_count, format_time, safe_text
from insight.runtime.hardware import format_flops

_MAX_FILES = 50


def build_data(run: RunRecord) -> Section | None:
    """Files, documents, bytes and tokens by split, the tokenizer and other facts of the data module."""
    data = run.info.get("data")
    if not isinstance(data, Mapping) or not data:
        return None
    splits = [_split(name, values) for name, values in run.splits.items()]
    rest = {key: value for key, value in data.items() if key not in ("splits", "canaries")}
    if isinstance(canaries := data.get("canaries"), Mapping):
        planted = canaries.get("planted")
        rest["canaries planted in the training text"] = len(planted) if isinstance(planted, list) else None
        rest["times each was planted"] = canaries.get("repetitions")
    return Section("data", "Data", "data.html.j2", {"splits": splits, "facts": facts_of(rest)})


def _split(name: str, values: Mapping[str, Any]) -> dict[str, Any]:
    files = values.get("files")
    names = [str(file) for file in files] if isinstance(files, (list, tuple)) else []
    size, tokens = _positive(values.get("bytes")), _positive(values.get("tokens"))
    return {
        "name": name,
        "files": shown(len(names) if names else files) if files is not None else "",
        "file_names": [shown(file) for file in names[:_MAX_FILES]],
        "division": shown(values["division"]) if values.get("division") else "",
        "num_more_files": max(0, len(names) - _MAX_FILES),
        "documents": shown(values["documents"]) if "documents" in values else "",
        "bytes": format_bytes(size) if size else "",
        "tokens": f"{tokens:,.0f}" if tokens else "",
        "bytes_per_token": f"{size / tokens:.2f}" if size and tokens else "",
    }


def _positive(value: Any) -> float | None:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if is_number and value > 0 else None


def build_network(run: RunRecord) -> Section | None:
    """The network's configuration as a nested table, with its number of parameters."""
    network, parameters = run.info.get("network"), run.info.get("parameters")
    rows: list[Fact] = []
    if isinstance(parameters, int):
        rows.append(Fact("parameters", f"{parameters:,}"))
    sizes = run.info.get("network_sizes")
    derived = sizes if isinstance(sizes, Mapping) else {}
    if isinstance(network, Mapping) and "vocabulary_size" in derived:
        rows.append(Fact("vocabulary size", shown(derived["vocabulary_size"])))
    if isinstance(network, Mapping) and "class_path" in network:
        rows.extend(facts_of({"network": network}, derived=derived))
        rows = [Fact("class", short_class(network)) if row.name == "network" else row for row in rows]
        rows = [Fact(row.name, row.value, max(0, row.depth - 1)) for row in rows]
    elif isinstance(network, Mapping):
        rows.extend(facts_of(network, derived=derived))
    return Section("network", "Network", "facts.html.j2", {"facts": rows}) if rows else None


_LABELS = {"num_cores": "cores", "memory_bytes": "memory", "has_compiler": "torch.compile can build"}


def build_machine(run: RunRecord) -> Section | None:
    """The measured hardware, the options chosen for it, and the versions of libraries."""
    rows = [*hardware_facts(run.info.get("hardware")), *_choices(run), *_speed(run), *_versions(run)]
    return Section("machine", "Machine", "facts.html.j2", {"facts": rows}) if rows else None


def hardware_facts(hardware: object) -> list[Fact]:
    """Rows for :class:`insight.runtime.hardware.Hardware` as JSON; empty for any other value."""
    if not isinstance(hardware, Mapping):
        return []
    rows: list[Fact] = []
    for key, value in hardware.items():
        if key == "matmul_flops" and isinstance(value, Mapping):
            rates = [(name, rate) for name, rate in value.items() if isinstance(rate, (int, float))]
            rows.extend(Fact(f"matmul, {name}", f"{format_flops(rate)} (measured)") for name, rate in rates)
        elif key == "memory_bytes" and isinstance(value, (int, float)):
            rows.append(Fact("memory", format_bytes(value)))
        else:
            rows.extend(facts_of({_LABELS.get(str(key), str(key)): value}))
    return rows


def _choices(run: RunRecord) -> list[Fact]:
    keys = ("precision", "num_threads", "kernels")
    return [Fact(readable(key), shown(run.info[key])) for key in keys if key in run.info]


def _speed(run: RunRecord) -> list[Fact]:
    rows = []
    speed = _median(curve(run.metrics, "throughput/tokens_per_second").values)
    share = _median(curve(run.metrics, "throughput/matmul_share").values)
    peak = [value for value in curve(run.metrics, "memory/peak_bytes").values if math.isfinite(value)]
    if speed is not None:
        rows.append(Fact("median throughput", f"{format_count(speed)} tokens per second"))
    if share is not None:
        rows.append(Fact("share of the measured matmul rate", f"{share:.0%} (median)"))
    if peak:
        rows.append(Fact("peak memory of the run", format_bytes(max(peak))))
    return rows


def _versions(run: RunRecord) -> list[Fact]:
    versions = [(key, value) for key, value in run.info.items() if key.endswith("_version")]
    return [Fact(key.removesuffix("_version"), shown(value)) for key, value in versions]


def _median(values: tuple[float, ...]) -> float | None:
    finite = [value for value in values if math.isfinite(value)]
    return statistics.median(finite) if finite else None


_COMMAND_CHARACTERS = 8_000
_CONFIG_CHARACTERS = 100_000


def build_reproduction(run: RunRecord) -> Section | None:
    """The exact command, quoted for a shell, and ``config.yaml``."""
    command = run.info.get("command")
    if isinstance(command, list):
        command = shlex.join(_typed(str(part), index) for index, part in enumerate(command))
    if not command and not run.config:
        return None
    return Section(
        identifier="reproduction",
        title="How to do it again",
        template="reproduction.html.j2",
        content={
            "command": safe_text(str(command or ""), _COMMAND_CHARACTERS),
            "config": safe_text(run.config, _CONFIG_CHARACTERS),
            "num_lines": run.config.count("\n") + 1,
        },
    )


_MAX_NOTES = 200
_NOTE_CHARACTERS = 1_000
# Keys that other sections show.
_TOLD = {
    "command",
    "data",
    "hardware",
    "kernels",
    "network",
    "network_sizes",
    "notes",
    "num_threads",
    "parameters",
    "precision",
    "seconds",
    "steps",
    "training_seconds",
}


def build_history(run: RunRecord) -> Section | None:
    """Start, end, stop reason, notes (choices, resumes), and facts that no other section shows."""
    rows = [
        Fact(key, format_time(run.info[key]))
        for key in ("started", "finished")
        if run.info.get(key) is not None
    ]
    rest = {
        key: value
        for key, value in run.info.items()
        if value is not None
        and key not in _TOLD
        and key not in ("started", "finished")
        and not key.endswith("_version")
    }
    rows.extend(facts_of(rest))
    recorded = run.info.get("notes")
    notes = (
        [safe_text(str(note), _NOTE_CHARACTERS) for note in recorded] if isinstance(recorded, list) else []
    )
    if not rows and not notes:
        return None
    content = {"facts": rows, "notes": notes[:_MAX_NOTES], "num_left_out": max(0, len(notes) - _MAX_NOTES)}
    return Section("history", "History", "history.html.j2", content)


def _typed(part: str, index: int) -> str:
    """A word of the command as it can be typed on any machine, without this machine's folders."""
    path = PurePath(part)
    if index == 0 and (path.name == "__main__.py" or path.stem == "insight"):
        return "insight"  # started by the script or by `python -m insight`
    name, equals, value = part.rpartition("=")
    path = PurePath(value)
    if path.is_absolute():
        if path.parent.name == "configs" and path.suffix == ".yaml" and _is_shipped(path):
            value = path.stem
        else:
            for folder, short in ((Path.cwd(), ""), (Path.home(), "~")):
                if path.is_relative_to(folder) and len(folder.parts) > 1:
                    value = (PurePath(short) / path.relative_to(folder)).as_posix()
                    break
    return f"{name}{equals}{value}"


def _is_shipped(path: PurePath) -> bool:
    """Whether a configuration is part of the package, which finds it by name."""
    root = Path(insight.__file__).parent
    return any((folder / path.name).is_file() for folder in (root / "configs", root.parent / "configs"))
