"""What the network was trained, validated and tested on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from insight.reporting.run_record import RunRecord
from insight.reporting.sections.facts import facts_of, shown
from insight.reporting.sections.section import Section
from insight.runtime.formats import format_bytes

_MAX_FILES = 50


def build_data(run: RunRecord) -> Section | None:
    """Files, documents, bytes and tokens by split, the tokenizer and whatever else the data module says."""
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
