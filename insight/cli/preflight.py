"""What is checked before a run folder is made: the data, the network, and that a checkpoint fits them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from insight.interchange import differing_tensors, load_checkpoint
from insight.runtime.errors import CheckpointError, ConfigError
from insight.runtime.run_folder import find_checkpoint

if TYPE_CHECKING:
    from insight.cli.lightning import InsightCLI

_NUM_SHOWN = 3


def check_data_and_network(cli: InsightCLI, checkpoint: Path | None) -> None:
    """Prepare the data, and check that network and checkpoint go with it.

    Args:
        cli: What was configured.
        checkpoint: What to resume from, if anything.

    Raises:
        InsightError: Something does not fit; nothing but the cache has been written.
    """
    check_sequence_length(cli)
    cli.datamodule.setup("fit")
    if checkpoint is not None:
        check_checkpoint(cli, checkpoint, "--resume")
    if cli.config.get("init_from"):
        check_checkpoint(cli, find_checkpoint(cli.config.init_from, cli.run_config.root), "--init_from")


def check_sequence_length(cli: InsightCLI) -> None:
    """Check that the network can take the sequences of the data.

    Raises:
        ConfigError: They are longer than its context.
    """
    longest = getattr(getattr(cli.model, "network_config", None), "max_sequence_length", None)
    length = getattr(cli.datamodule, "sequence_length", None)
    if longest is not None and length is not None and length > longest:
        raise ConfigError(
            f"data.sequence_length={length} exceeds model.network.max_sequence_length={longest}",
            f"use --model.network.max_sequence_length {length}",
        )


def check_checkpoint(cli: InsightCLI, checkpoint: Path, option: str) -> None:
    """Check that a checkpoint is whole and has this network and this tokenizer.

    Raises:
        CheckpointError: It is no checkpoint, damaged, holds code, or is of another network or tokenizer.
    """
    if checkpoint.is_dir():
        raise CheckpointError(
            f"{option}={checkpoint}: is a quantized model, which cannot be trained",
            "name the checkpoint that it was made from",
        )
    loaded = load_checkpoint(checkpoint)
    tokenizer, configured = cli.datamodule.tokenizer, cli.model.network_config
    with torch.device("meta"):
        present = configured.build(tokenizer.vocabulary_size)
    tensors = differing_tensors(loaded.network.state_dict(), present.state_dict())
    shown = "".join(f"; {difference}" for difference in tensors[:_NUM_SHOWN])
    if len(tensors) > _NUM_SHOWN:
        shown += f"; {len(tensors) - _NUM_SHOWN} more"
    if loaded.tokenizer.fingerprint() != tokenizer.fingerprint():
        raise CheckpointError(
            f"{option}={checkpoint}: was trained with another tokenizer ("
            f"{loaded.tokenizer.vocabulary_size} tokens, this one has {tokenizer.vocabulary_size}){shown}",
            "use the data and tokenizer settings of its run",
        )
    if loaded.network_config != configured:
        before, now = loaded.network_config.to_dict()["init_args"], configured.to_dict()["init_args"]
        different = [key for key in now if before.get(key) != now[key]]
        raise CheckpointError(
            f"{option}={checkpoint}: has another network ({', '.join(different) or 'another class'} differ)"
            f"{shown}",
            "use the model settings of its run",
        )
