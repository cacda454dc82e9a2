"""Where the result of a search is kept: the artefact with its report, or the report alone."""

from __future__ import annotations

import json
from pathlib import Path

from insight.optimization.artifact import REPORT, save_artifact
from insight.optimization.output_folder import new_folder, write_json
from insight.optimization.search import SearchResult

CONFIG = "config.yaml"


def write_result(result: SearchResult, folder: Path, run_config: Path | None = None) -> None:
    """Write ``report.json`` and, where the model was not left alone, the artefact, as a new folder.

    Args:
        result: What was found.
        folder: Must not exist.
        run_config: The configuration of the run, which lets the artefact be tested on the run's text.

    Raises:
        OutputError: The folder exists already or cannot be written.
    """
    if result.optimized is None:
        with new_folder(folder) as temporary:
            write_json(temporary / REPORT, result.to_record())
        return
    files = {REPORT: json.dumps(result.to_record(), indent=2, allow_nan=False) + "\n"}
    if run_config is not None and run_config.is_file():
        files[CONFIG] = run_config.read_text(encoding="utf-8")
    save_artifact(result.optimized, folder, files)
