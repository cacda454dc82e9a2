"""``--resume``: the saved configuration first, the command line over it, and the differences said."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import yaml

from insight.api.config_files import option_value, option_values, read_config, resolve_config_options
from insight.api.run_config import RunConfig
from insight.runtime.errors import ConfigError
from insight.runtime.messages import say
from insight.runtime.run_folder import RunFolder, find_resumable, list_runs, run_of_checkpoint

AUTO_OR_NEW = "auto_or_new"
"""``--resume`` of a job script, which is the same for the first start and all later ones."""


@dataclasses.dataclass(frozen=True)
class Resumed:
    """What a run goes on from.

    Args:
        checkpoint: The .ckpt file.
        run: The folder it lies in, which the run goes on in; ``None`` for a checkpoint from elsewhere.
    """

    checkpoint: Path
    run: RunFolder | None

    @classmethod
    def from_plain(cls, value: dict[str, str | None]) -> Resumed:
        """Undo :meth:`to_plain`."""
        run = value["run"]
        return cls(Path(str(value["checkpoint"])), RunFolder(Path(run)) if run else None)

    def to_plain(self) -> dict[str, str | None]:
        """As JSON, for another process that may stand in another folder."""
        run = self.run.path.absolute() if self.run else None
        return {"checkpoint": str(self.checkpoint.absolute()), "run": str(run) if run else None}

    @property
    def saved_config(self) -> Path | None:
        """The configuration of the run, if it is there."""
        return self.run.config_path if self.run and self.run.config_path.is_file() else None

    @property
    def saved_batch_size(self) -> int | None:
        """The batch size that the run was begun with, which its position counts in."""
        if self.saved_config is None:
            return None
        size = read_config(self.saved_config).get("data", {}).get("init_args", {}).get("batch_size")
        return size if isinstance(size, int) else None


def find_resumed(arguments: list[str]) -> Resumed | None:
    """What ``--resume`` in ``arguments`` means, or ``None`` without it.

    Raises:
        ConfigError: ``--init_from`` is given too, or ``--config`` cannot be read.
        CheckpointError: There is nothing to resume.
    """
    text = option_value(arguments, "--resume")
    if text is None:
        return None
    if option_value(arguments, "--init_from") is not None:
        raise ConfigError(
            "--resume and --init_from: both are given", "--init_from begins a new run; leave one out"
        )
    planned = _planned_run(arguments)
    if text == AUTO_OR_NEW:
        if not _has_checkpoint(planned):
            say(f"--resume={AUTO_OR_NEW}: no run of {planned.name!r} in {planned.root} to go on with")
            return None
        text = "auto"
    checkpoint = find_resumable(text, planned.root, planned.name)
    return Resumed(checkpoint, run_of_checkpoint(checkpoint))


def say_differences(saved: str, present: str) -> None:
    """One line for each option whose value differs between two configurations in YAML."""
    for option, old, new in differences(saved, present):
        say(f"differs from the saved configuration: {option}={new} (saved: {old})")


def differences(first: str, second: str) -> list[tuple[str, Any, Any]]:
    """The options whose values differ between two configurations in YAML, with both values."""
    before, after = (_flat(yaml.safe_load(text) or {}) for text in (first, second))
    pairs = (
        (option, before.get(option), after.get(option)) for option in sorted(before.keys() | after.keys())
    )
    return [(option, old, new) for option, old, new in pairs if old != new]


def _has_checkpoint(planned: RunConfig) -> bool:
    """Whether a run of this name has a checkpoint; one that is damaged is no reason to start anew."""
    names = (
        path.name for run in list_runs(planned.root, planned.name) for path in run.checkpoints.glob("*.ckpt")
    )
    return any(not name.startswith(".") for name in names)


def _planned_run(arguments: list[str]) -> RunConfig:
    """Name and root of the run that ``arguments`` describe, looked up before anything is parsed."""
    values = {"name": RunConfig.name, "root": RunConfig.root}
    for path in option_values(resolve_config_options(arguments), "--config", "-c"):
        group = read_config(Path(path)).get("run")
        if isinstance(group, dict):
            values |= {key: str(group[key]) for key in values if key in group}
    for key in values:
        given = option_value(arguments, f"--run.{key}")
        if given is not None:
            values[key] = given
    return RunConfig(name=values["name"], root=values["root"])


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(value, dict) and value:
        flat: dict[str, Any] = {}
        for key, child in value.items():
            flat |= _flat(child, f"{prefix}.{key}" if prefix else str(key))
        return flat
    if isinstance(value, list) and any(isinstance(item, dict) for item in value):
        return _flat({str(index): item for index, item in enumerate(value)}, prefix)
    return {prefix: value}
