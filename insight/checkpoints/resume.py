"""Resuming: finding the checkpoint, checking that it fits the run, and reporting changed options."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from insight.runtime.errors import CheckpointError, ConfigError
from insight.runtime.messages import say
from insight.runtime.run_folder import RunFolder, find_resumable, list_runs, run_of_checkpoint

if TYPE_CHECKING:
    from insight.data.tokenizers import BaseTokenizer

AUTO_OR_NEW = "auto_or_new"
"""The value of ``--resume`` for a job script, which starts the first and all later jobs of a run alike."""
_NUM_SHOWN = 3


@dataclasses.dataclass(frozen=True)
class Resumed:
    """The checkpoint that a run resumes from."""

    checkpoint: Path

    @classmethod
    def find(cls, text: str, root: Path | str, name: str) -> Resumed | None:
        """The checkpoint for ``--resume text`` of run ``name`` under ``root``; ``None`` for a new run."""
        if text == AUTO_OR_NEW:
            # A damaged checkpoint must not start a new run.
            paths = (path for run in list_runs(root, name) for path in run.checkpoints.glob("*.ckpt"))
            if all(path.name.startswith(".") for path in paths):
                say(f"--resume={AUTO_OR_NEW}: no run of {name!r} in {root} to go on with")
                return None
            text = "auto"
        return cls(find_resumable(text, root, name))

    @property
    def run(self) -> RunFolder | None:
        """Its run folder, in which the run continues; ``None`` if it is in none."""
        return run_of_checkpoint(self.checkpoint)

    @property
    def saved_config(self) -> Path | None:
        """The configuration file of the run, if it exists."""
        return self.run.config_path if self.run and self.run.config_path.is_file() else None

    @property
    def saved_batch_size(self) -> int | None:
        """The batch size in the configuration of the run."""
        if self.saved_config is None:
            return None
        saved = yaml.safe_load(self.saved_config.read_text(encoding="utf-8")) or {}
        options = saved.get("data", {}).get("init_args", {})
        size = options.get("batch_size", options.get("batch_tokens"))
        return size if isinstance(size, int) else None


def check_fits(
    contents: dict[str, Any],
    path: Path,
    config: Any,
    tokenizers: Sequence[BaseTokenizer],
    option: str,
) -> None:
    """Check that a checkpoint that was read has the network and the tokenizers of a run.

    ``config`` is the network's; ``tokenizers`` are in the order of the data module, that of the target first.

    Raises:
        CheckpointError: It is damaged, or of another network or tokenizer; ``option`` holds its ``path``.
    """
    import torch

    from insight.checkpoints.reader import describe, differing_tensors, network_weights, other_tokenizer

    saved = describe(contents, path)
    weights = network_weights(contents)
    damage = differing_tensors(weights, saved.network.state_dict())
    if damage:
        raise CheckpointError(f"{path}: {damage[0]}", "use another checkpoint of the run")
    kinds = [_kind(one) for one in (saved.network_config, config)]
    if kinds[0] != kinds[1]:
        problem = f"holds {kinds[0]}, and this run trains {kinds[1]}"
        raise CheckpointError(problem, f"name a checkpoint of {kinds[1]}", option=option, value=path)
    other = other_tokenizer(saved.tokenizers, tokenizers)
    if other is not None:
        problem = other
        remedy = "use the data and tokenizer settings of its run"
    elif saved.network_config != config:
        before, now = saved.network_config.to_dict()["init_args"], config.to_dict()["init_args"]
        different = [key for key in now if before.get(key) != now[key]]
        problem = f"has another network ({', '.join(different) or 'another class'} differ)"
        remedy = "use the model settings of its run"
    else:
        return
    tensors: list[str] = []
    with torch.device("meta"), contextlib.suppress(ConfigError):  # of vocabularies that do not fit it
        present = config.build(*(tokenizer.vocabulary_size for tokenizer in tokenizers))
        tensors = differing_tensors(weights, present.state_dict())
    problem = "; ".join([problem, *tensors[:_NUM_SHOWN]])
    if len(tensors) > _NUM_SHOWN:
        problem += f"; {len(tensors) - _NUM_SHOWN} more"
    raise CheckpointError(problem, remedy, option=option, value=path)


def _kind(config: Any) -> str:
    from insight.models import EncoderDecoderConfig

    return "a translation model" if isinstance(config, EncoderDecoderConfig) else "a decoder"


def say_differences(saved: str, present: str) -> None:
    """Print one line for each option whose value differs between two configurations in YAML."""
    for option, old, new in differences(saved, present):
        say(f"differs from the saved configuration: {option}={new} (saved: {old})")


def differences(first: str, second: str) -> list[tuple[str, Any, Any]]:
    """Options whose values differ between two configurations in YAML, with both values."""
    before, after = (_flat(yaml.safe_load(text) or {}) for text in (first, second))
    options = sorted(before.keys() | after.keys())
    return [
        (name, before.get(name), after.get(name)) for name in options if before.get(name) != after.get(name)
    ]


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(value, list) and any(isinstance(item, dict) for item in value):
        value = dict(enumerate(value))
    if not (isinstance(value, dict) and value):
        return {prefix: value}
    flat: dict[str, Any] = {}
    for key, child in value.items():
        flat |= _flat(child, f"{prefix}.{key}" if prefix else str(key))
    return flat
