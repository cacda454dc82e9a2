"""``insight check``: all that can be checked without training, and a table of what the run would do."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from insight.cli.commands import COMMANDS
from insight.runtime.errors import ConfigError
from insight.runtime.files import ensure_writable
from insight.runtime.limits import usable_memory_bytes
from insight.runtime.memory import resident_bytes
from insight.runtime.messages import plain_line, silence_libraries

if TYPE_CHECKING:
    import torch

    from insight.cli.lightning import InsightCLI

# The largest file that a run keeps twice (best and last) and writes a third time while it saves.
_CHECKPOINTS_ON_DISK = 3


def run(name: str, arguments: list[str]) -> int:
    """Run the command."""
    silence_libraries()

    from insight.cli.lightning import InsightCLI
    from insight.cli.preflight import check_data_and_network

    cli = InsightCLI(name, arguments, COMMANDS[name].summary)
    root = Path(cli.run_config.root)
    ensure_writable(root / cli.run_config.name)
    check_data_and_network(cli, None)
    loss, activation_bytes = _one_step(cli)
    facts = {
        **_data_facts(cli),
        **_network_facts(cli),
        "training ends": _end(cli),
        **_needs(cli, root, activation_bytes),
        "machine": "; ".join(cli.choices.notes),
        "one step": f"forward and backward ran on one sequence, loss {loss:.3f}",
    }
    width = max(map(len, facts))
    for key, value in facts.items():
        print(f"{key:{width}}  {plain_line(value)}")
    print("nothing speaks against it: run it with `insight fit` in place of `insight check`")
    return 0


def _one_step(cli: InsightCLI) -> tuple[float, int]:
    """Train one step on one sequence through the real Trainer.

    Returns:
        The loss, and the bytes that one sequence keeps between forward and backward.
    """
    import torch

    storages: dict[int, int] = {}

    def remember(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    configured, cli.datamodule.batch_size = cli.datamodule.batch_size, 1
    trainer = cli.make_trainer(fast_dev_run=True)
    try:
        with torch.autograd.graph.saved_tensors_hooks(remember, lambda tensor: tensor):
            trainer.fit(cli.model, datamodule=cli.datamodule)
    finally:
        cli.datamodule.batch_size = configured
    weights = {parameter.untyped_storage().data_ptr() for parameter in cli.model.parameters()}
    kept = sum(size for pointer, size in storages.items() if pointer not in weights)
    return float(trainer.callback_metrics["train/loss"]), kept


def _data_facts(cli: InsightCLI) -> dict[str, str]:
    summary = cli.datamodule.summary()
    facts = {}
    for split, about in summary["splits"].items():
        files = about["files"]
        note = f", {about['division']}" if about["division"] else ""
        facts[split] = (
            f"{len(files)} file{'s' if len(files) > 1 else ''}, {about['documents']:,} documents, "
            f"{about['bytes'] / 1e6:.2f} MB, {about['tokens']:,} tokens{note}"
        )
    tokenizer = summary["tokenizer"]
    encoder = cli.datamodule.tokenizer.encoder
    facts["tokenizer"] = f"{tokenizer['kind']}, {tokenizer['vocabulary_size']:,} tokens, encoded by {encoder}"
    tokens = cli.datamodule.batch_size * cli.datamodule.sequence_length
    steps = summary["splits"]["train"]["tokens"] // tokens
    facts["one epoch"] = f"about {steps:,} batches of {tokens:,} tokens"
    return facts


def _network_facts(cli: InsightCLI) -> dict[str, str]:
    network = cli.model.network
    return {"network": f"{type(network).__name__}, {network.num_parameters():,} parameters"}


def _end(cli: InsightCLI) -> str:
    trainer, limits = cli.config.trainer, []
    if cli.run_config.time_budget:
        limits.append(f"after {cli.run_config.time_budget:g} s")
    if trainer.max_steps > 0:
        limits.append(f"after {trainer.max_steps:,} steps")
    if trainer.max_epochs:
        limits.append(f"after {trainer.max_epochs:,} epochs")
    return " or ".join(limits) or "by a callback"


def _needs(cli: InsightCLI, root: Path, activation_bytes: int) -> dict[str, str]:
    weights = sum(parameter.numel() * parameter.element_size() for parameter in cli.model.parameters())
    states = 2 * weights  # Adam keeps two numbers a weight; Muon one
    checkpoint = weights + states
    memory = resident_bytes() + 2 * weights + states + activation_bytes * cli.datamodule.batch_size
    available = usable_memory_bytes()
    on_cpu = cli.choices.hardware.accelerator == "cpu"
    if on_cpu and memory > available:
        raise ConfigError(
            f"about {memory / 1e9:.1f} GB of memory needed, {available / 1e9:.1f} GB there",
            "lower data.batch_size, data.sequence_length or the network's size",
        )
    ensure_writable(root, _CHECKPOINTS_ON_DISK * checkpoint)
    existing = next(folder for folder in (root.absolute(), *root.absolute().parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    return {
        "memory": f"about {memory / 1e9:.2f} GB of {available / 1e9:.1f} GB",
        "disk": f"about {checkpoint / 1e6:.1f} MB a checkpoint, {free / 1e9:.1f} GB free under {root}",
    }
