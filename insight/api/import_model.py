"""Models of other libraries become runs: a checkpoint, its tokenizer, and a configuration to go on with."""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from insight.api.config_files import CONFIG_OPTIONS, config_path, option_value, read_config, yaml_text
from insight.interchange.sources import READABLE, is_foreign, split_source
from insight.runtime.errors import ConfigError
from insight.runtime.files import atomic_write_text, ensure_writable, new_folder, require_new
from insight.runtime.json_files import to_text
from insight.runtime.messages import say
from insight.runtime.processes import one_command
from insight.runtime.run_folder import RunFolder, find_checkpoint, run_of_checkpoint

if TYPE_CHECKING:
    from insight.interchange.foreign_model import ForeignModel

# A window of this many tokens trains on a machine without a GPU.
_LONGEST_WINDOW = 512
_TRAINING = {
    "optimizer": {"class_path": "AdamW", "init_args": {"learning_rate": 1e-4}},
    "schedule": {"class_path": "WarmupCosine"},
}
_NOT_OF_THE_MODEL = ("dropout", "initialization", "activation_checkpointing")


@one_command()
def import_model(source: str, output: str | Path, *, config: str = "quickstart") -> RunFolder:
    """Read a model of another library and write it as a run, as ``insight import`` does.

    The run has a checkpoint, the tokenizer, and a ``config.yaml`` with which every command works: it names
    the text of ``config`` and the network of the model. Nothing in the source is run as code.

    Args:
        source: The model, as hf:FOLDER, where FOLDER holds config.json, safetensors and tokenizer.json.
        output: The run folder to write; it must not exist.
        config: Configuration that names the text to measure and train on further.

    Returns:
        The run folder.

    Raises:
        InsightError: The error that the command prints; nothing has been written then.
    """
    output = Path(output)
    require_new(output)
    if not is_foreign(source):
        raise ConfigError(
            "names no model of another library", f"use {READABLE}", option="SOURCE", value=source
        )
    read_config(config_path(config))  # refuses what is no configuration
    base = yaml.safe_load(config_path(config).read_text(encoding="utf-8-sig"))
    ensure_writable(output.parent)

    from insight.interchange.formats import open_foreign

    model = open_foreign(source, "SOURCE")
    for note in model.notes:
        say(note)
    length = min(model.config.max_sequence_length, _LONGEST_WINDOW)
    with new_folder(output) as folder:
        run = RunFolder(folder)
        _write_checkpoint(model, run, length)
        model.tokenizer.save(folder)
        _write_beside(model, run)
        described = _configuration(base, model, output.absolute(), length)
        atomic_write_text(run.config_path, described)
    return RunFolder(output)


@contextlib.contextmanager
def with_foreign_network(arguments: list[str]) -> Iterator[list[str]]:
    """A command line whose ``--init_from`` decides network and tokenizer, if it names a foreign model.

    A configuration file is added after those of the user, so that single options still override it; it
    exists inside the block only.
    """
    source = option_value(arguments, "--init_from")
    if source is None or not is_foreign(source):
        yield arguments
        return
    from insight.interchange.formats import open_foreign

    model = open_foreign(source)
    for note in model.notes:
        say(note)
    path = Path(split_source(source)[1]).expanduser().absolute()
    with tempfile.TemporaryDirectory(prefix="insight-") as folder:
        file = Path(folder) / "network.yaml"
        file.write_text(yaml_text(_parts_of(model, path)), encoding="utf-8")
        places = [index for index, word in enumerate(arguments) if word.partition("=")[0] in CONFIG_OPTIONS]
        last = places[-1] + (1 if "=" in arguments[places[-1]] else 2) if places else 0
        yield [*arguments[:last], "--config", str(file), *arguments[last:]]


def carry_over(source: str, root: Path | str, run: RunFolder) -> None:
    """Give a run the chat template and the generation defaults of the model that it begins with.

    ``source`` is the value of ``--init_from``, ``root`` the folder of all runs.
    """
    if is_foreign(source):
        from insight.interchange.formats import open_foreign

        _write_beside(open_foreign(source), run)
        return
    before = run_of_checkpoint(find_checkpoint(source, root))
    if before is None:
        return
    for path in (before.chat_template_path, before.generation_path):
        if path.is_file():
            atomic_write_text(run.path / path.name, path.read_text(encoding="utf-8"))


def _write_beside(model: ForeignModel, run: RunFolder) -> None:
    if model.chat_template is not None:
        atomic_write_text(run.chat_template_path, model.chat_template)
    if model.generation:
        atomic_write_text(run.generation_path, to_text(model.generation, indent=2) + "\n")


def _write_checkpoint(model: ForeignModel, run: RunFolder, sequence_length: int) -> None:
    """Write ``best.ckpt`` as training writes it, at step 0 and without optimizer state."""
    import lightning

    from insight.checkpoints.format import CONTENT, CheckpointContent
    from insight.checkpoints.writer import BEST, write_file

    content = CheckpointContent(
        network=model.config.to_dict(),
        tokenizer=model.tokenizer.to_json(),
        vocabulary_size=model.tokenizer.vocabulary_size,
        sequence_length=sequence_length,
        random_states=[],
    )
    checkpoint: dict[str, Any] = {
        "epoch": 0,
        "global_step": 0,
        "pytorch-lightning_version": lightning.__version__,
        "state_dict": {f"network.{name}": tensor for name, tensor in model.tensors()},
        CONTENT: content.to_dict(),
    }
    run.checkpoints.mkdir()
    write_file(checkpoint, run.checkpoints / BEST)


def _parts_of(model: ForeignModel, tokenizer: Path) -> dict[str, Any]:
    """The parts of a configuration that a model decides."""
    network = model.config.to_dict()
    for name in _NOT_OF_THE_MODEL:
        del network["init_args"][name]
    reader = {"class_path": "PretrainedTokenizerConfig", "init_args": {"path": str(tokenizer)}}
    return {"data": {"tokenizer": reader}, "model": {"network": network}}


def _configuration(base: dict[str, Any], model: ForeignModel, folder: Path, length: int) -> str:
    """The configuration ``base`` with the network and the tokenizer of a model, and gentle training."""
    parts = _parts_of(model, folder / "tokenizer.json")
    data = dict(base.get("data") or {})
    inner = data.pop("init_args", None)
    data |= inner if isinstance(inner, dict) else {}
    data |= {**parts["data"], "sequence_length": length, "batch_size": 4, "validation_batch_size": 4}
    run = {**(base.get("run") or {}), "name": re.sub(r"[^A-Za-z0-9._-]|^[._-]", "x", folder.name)}
    merged = {**base, "run": run, "data": data, "model": {**_TRAINING, **parts["model"]}}
    return f"# The network of {model.source}; the rest is only a beginning.\n{yaml_text(merged)}"
