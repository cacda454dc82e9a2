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
from insight.reporting.sections.section import (
    Fact,
    Section,
    facts_of,
    list_of,
    mapping_of,
    number,
    readable,
    short_class,
    shown,
    text_of,
)
from insight.runtime.formats import format_bytes, format_count, format_time, safe_text
from insight.runtime.hardware import format_flops

_MAX_FILES = 50


def build_data(run: RunRecord) -> Section | None:
    """Files, documents, bytes and tokens by split, the tokenizer and other facts of the data module."""
    data = mapping_of(run.info.get("data"))
    if not data:
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
    names = [shown(str(file)) for file in list_of(files)]
    size, tokens = number(values.get("bytes")), number(values.get("tokens"))
    return {
        "name": name,
        "files": shown(len(names) if names else files) if files is not None else "",
        "file_names": names[:_MAX_FILES],
        "division": shown(values["division"]) if values.get("division") else "",
        "num_more_files": max(0, len(names) - _MAX_FILES),
        "documents": shown(values["documents"]) if "documents" in values else "",
        "bytes": format_bytes(size) if size > 0 else "",
        "tokens": f"{tokens:,.0f}" if tokens > 0 else "",
        "bytes_per_token": f"{size / tokens:.2f}" if size > 0 and tokens > 0 else "",
    }


def build_network(run: RunRecord) -> Section | None:
    """The network's configuration as a nested table, with its number of parameters."""
    network, parameters = run.info.get("network"), run.info.get("parameters")
    derived = mapping_of(run.info.get("network_sizes"))
    rows = [Fact("parameters", f"{parameters:,}")] if isinstance(parameters, int) else []
    if isinstance(network, Mapping):
        if "vocabulary_size" in derived:
            rows.append(Fact("vocabulary size", shown(derived["vocabulary_size"])))
        if "class_path" in network:
            rows.append(Fact("class", short_class(network)))
            network = network.get("init_args")
        rows += facts_of(network, derived=derived)
    return Section("network", "Network", "facts.html.j2", {"facts": rows}) if rows else None


_LABELS = {"num_cores": "cores", "memory_bytes": "memory", "has_compiler": "torch.compile can build"}


def build_machine(run: RunRecord) -> Section | None:
    """The measured hardware, the options chosen for it, and the versions of libraries."""
    chosen = [key for key in ("precision", "num_threads", "kernels") if key in run.info]
    choices = [Fact(readable(key), shown(run.info[key])) for key in chosen]
    rows = [*hardware_facts(run.info.get("hardware")), *choices, *_speed(run), *versions(run.info)]
    return Section("machine", "Machine", "facts.html.j2", {"facts": rows}) if rows else None


def hardware_facts(hardware: object) -> list[Fact]:
    """Rows for :class:`insight.runtime.hardware.Hardware` as JSON; empty for any other value."""
    rows: list[Fact] = []
    for key, value in mapping_of(hardware).items():
        if key == "matmul_flops" and isinstance(value, Mapping):
            rates = [(name, rate) for name, rate in value.items() if isinstance(rate, (int, float))]
            rows.extend(Fact(f"matmul, {name}", f"{format_flops(rate)} (measured)") for name, rate in rates)
        elif key == "memory_bytes" and isinstance(value, (int, float)):
            rows.append(Fact("memory", format_bytes(value)))
        else:
            rows.extend(facts_of({_LABELS.get(str(key), str(key)): value}))
    return rows


def versions(info: Mapping[str, Any]) -> list[Fact]:
    """Rows for the versions of libraries among the values of a file."""
    keys = [key for key in info if key.endswith("_version")]
    return [Fact(key.removesuffix("_version"), shown(info[key])) for key in keys]


def _speed(run: RunRecord) -> list[Fact]:
    speeds, shares, peaks = (
        [value for value in curve(run.metrics, name).values if math.isfinite(value)]
        for name in ("throughput/tokens_per_second", "throughput/matmul_share", "memory/peak_bytes")
    )
    rows = []
    if speeds:
        speed = format_count(statistics.median(speeds))
        rows.append(Fact("median throughput", f"{speed} tokens per second"))
    if shares:
        share = f"{statistics.median(shares):.0%} (median)"
        rows.append(Fact("share of the measured matmul rate", share))
    if peaks:
        rows.append(Fact("peak memory of the run", format_bytes(max(peaks))))
    return rows


_COMMAND_CHARACTERS = 8_000
_CONFIG_CHARACTERS = 100_000


def build_reproduction(run: RunRecord) -> Section | None:
    """The exact command, quoted for a shell, and ``config.yaml``."""
    command = run.info.get("command")
    if isinstance(command, list):
        command = shlex.join(_typed(str(part), index) for index, part in enumerate(command))
    if not command and not run.config:
        return None
    content = {
        "command": safe_text(str(command or ""), _COMMAND_CHARACTERS),
        "config": safe_text(run.config, _CONFIG_CHARACTERS),
        "num_lines": run.config.count("\n") + 1,
    }
    return Section("reproduction", "How to do it again", "reproduction.html.j2", content)


_MAX_NOTES = 200
# Keys that other sections show, or that come first in this one.
_TOLD = {"command", "data", "hardware", "kernels", "network", "network_sizes", "num_threads", "parameters"}
_TOLD |= {"finished", "notes", "precision", "seconds", "started", "steps", "training_seconds"}


def build_history(run: RunRecord) -> Section | None:
    """Start, end, stop reason, notes (choices, resumes), and facts that no other section shows."""
    times = [key for key in ("started", "finished") if run.info.get(key) is not None]
    rest = {
        key: value for key, value in run.info.items() if key not in _TOLD and not key.endswith("_version")
    }
    rows = [*(Fact(key, format_time(run.info[key])) for key in times), *facts_of(rest)]
    notes = [text_of(str(note)) for note in list_of(run.info.get("notes"))]
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
        root = Path(insight.__file__).parent
        shipped = (root / "configs" / path.name, root.parent / "configs" / path.name)
        if path.parent.name == "configs" and path.suffix == ".yaml" and any(map(Path.is_file, shipped)):
            value = path.stem  # the package finds it by name
        else:
            for folder, short in ((Path.cwd(), ""), (Path.home(), "~")):
                if path.is_relative_to(folder) and len(folder.parts) > 1:
                    value = (PurePath(short) / path.relative_to(folder)).as_posix()
                    break
    return f"{name}{equals}{value}"
