"""What is checked before a run folder is made: the data, the network, and that a checkpoint fits them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from insight.interchange import load_checkpoint
from insight.runtime.errors import CheckpointError, ConfigError
from insight.runtime.run_folder import find_checkpoint

if TYPE_CHECKING:
    from insight.cli.lightning import InsightCLI


def check_data_and_network(cli: InsightCLI, checkpoint: Path | None) -> None:
    """Prepare the data, and check that network and checkpoint go with it.

    Args:
        cli: What was configured.
        checkpoint: What to resume from, if anything.

    Raises:
        InsightError: Something does not fit; nothing but the cache has been written.
    """
    longest = getattr(getattr(cli.model, "network_config", None), "max_sequence_length", None)
    length = getattr(cli.datamodule, "sequence_length", None)
    if longest is not None and length is not None and length > longest:
        raise ConfigError(
            f"data.sequence_length={length} exceeds model.network.max_sequence_length={longest}",
            f"use --model.network.max_sequence_length {length}",
        )
    cli.datamodule.setup("fit")
    if checkpoint is not None:
        check_checkpoint(cli, checkpoint, "--resume")
    if cli.config.get("init_from"):
        check_checkpoint(cli, find_checkpoint(cli.config.init_from, cli.run_config.root), "--init_from")


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
    saved_tokenizer, tokenizer = loaded.tokenizer, cli.datamodule.tokenizer
    if saved_tokenizer.fingerprint() != tokenizer.fingerprint():
        raise CheckpointError(
            f"{option}={checkpoint}: was trained with another tokenizer "
            f"({saved_tokenizer.vocabulary_size} tokens, this one has {tokenizer.vocabulary_size})",
            "use the data and tokenizer settings of its run",
        )
    configured = cli.model.network_config
    if loaded.network_config != configured:
        saved, present = loaded.network_config.to_dict()["init_args"], configured.to_dict()["init_args"]
        different = [key for key in present if saved.get(key) != present[key]]
        raise CheckpointError(
            f"{option}={checkpoint}: has another network ({', '.join(different) or 'another class'} differ)",
            "use the model settings of its run",
        )
