"""``insight validate`` and ``insight test``: measure a checkpoint with the tokenizer and network it holds."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING

from insight.cli.config_files import has_config, option_value
from insight.runtime.errors import CheckpointError, ConfigError
from insight.runtime.messages import say, silence_libraries
from insight.runtime.run_folder import RunFolder, find_checkpoint, run_of_checkpoint

if TYPE_CHECKING:
    from lightning.pytorch import Callback

    from insight.checkpoints import LoadedCheckpoint
    from insight.cli.lightning import InsightCLI
    from insight.optimization.measurement import Quality

_SPLITS = {"validate": "validation", "test": "test"}


def run(name: str, arguments: list[str]) -> int:
    """Run the command."""
    silence_libraries()
    cli, checkpoint, loaded = cli_for_checkpoint(name, arguments)
    if not cli.has_files(_SPLITS[name]):
        raise ConfigError(
            f"data.{_SPLITS[name]}_files is not set", f"give --data.{_SPLITS[name]}_files FILES"
        )
    if checkpoint.is_dir():
        metrics = _measure_artifact(cli, name, loaded)
    else:
        # The numbers of other text or other settings do not belong into the record of the run.
        folder = run_of_checkpoint(checkpoint) if _only_checkpoint(arguments) else None
        metrics = _measure(cli, name, checkpoint, folder)
    if cli.config.json:
        print(json.dumps(metrics))
    else:
        for metric, value in metrics.items():
            print(f"{metric:26} {value:.4f}")
    return 0


def cli_for_checkpoint(name: str, arguments: list[str]) -> tuple[InsightCLI, Path, LoadedCheckpoint]:
    """Parse a command that measures a checkpoint; without ``--config`` the configuration of its run is taken.

    Returns:
        The parsed configuration, the path of the checkpoint (a folder for a quantized model), and the model.

    Raises:
        CheckpointError: There is no such checkpoint, it is damaged, or its network is not the configured one.
        ConfigError: The configuration is wrong, or there is none.
    """
    if {"-h", "--help"} & set(arguments):
        _cli(name, arguments)
    text = option_value(arguments, "--checkpoint")
    if text is None:
        raise ConfigError("--checkpoint is missing", "name a run folder or a .ckpt file")
    checkpoint = find_checkpoint(text)
    if not has_config(arguments):
        folder = RunFolder(checkpoint) if checkpoint.is_dir() else run_of_checkpoint(checkpoint)
        if folder is None or not folder.config_path.is_file():
            raise CheckpointError(
                f"--checkpoint={text!r} lies in no run folder with a config.yaml", "give --config FILE too"
            )
        arguments = ["--config", str(folder.config_path), *arguments]
    say(f"checkpoint: {checkpoint}")

    from insight.optimization import load_model

    loaded = load_model(checkpoint)
    cli = _cli(name, arguments)
    if cli.model.network_config != loaded.network_config:
        raise CheckpointError(
            f"--checkpoint={text!r} holds another network than the configuration describes",
            "leave --config and --model out: both are in the run folder",
        )
    cli.datamodule.use_tokenizer(loaded.tokenizer)
    return cli, checkpoint, loaded


def artifact_quality(cli: InsightCLI, name: str, split: str, loaded: LoadedCheckpoint) -> Quality:
    """How well a quantized model predicts a split, run as it was measured: its own types, compiled if it is.

    Lightning takes no part: it would cast, and build the network anew from the configuration.
    """
    from insight.optimization.measurement import measure_quality

    say(f"quantized: {loaded.metadata['quantization']['method']}, in its own precision")
    cli.datamodule.setup(name)
    store = cli.datamodule.store(split)
    return measure_quality(
        loaded.network,
        store.tokens(0, store.num_tokens),
        loaded.tokenizer.token_byte_lengths(),
        cli.datamodule.sequence_length,
        cli.datamodule.validation_batch_size,
        end_of_text_id=store.end_of_text_id,
    )


def _cli(name: str, arguments: list[str]) -> InsightCLI:
    from insight.cli.commands import COMMANDS
    from insight.cli.lightning import InsightCLI

    return InsightCLI(name, arguments, COMMANDS[name].summary)


def _measure(cli: InsightCLI, name: str, checkpoint: Path, folder: RunFolder | None) -> dict[str, float]:
    from insight import callbacks

    defaults: list[Callback] = [callbacks.GracefulInterrupt(), callbacks.ProgressLine()]
    if folder:
        defaults.append(callbacks.RunRecord())
    trainer = cli.make_trainer(folder.path if folder else None, defaults)
    measure = trainer.test if name == "test" else trainer.validate
    results = measure(
        cli.model, datamodule=cli.datamodule, ckpt_path=str(checkpoint), verbose=False, weights_only=True
    )
    return {metric: float(value) for metric, value in results[0].items()}


def _measure_artifact(cli: InsightCLI, name: str, loaded: LoadedCheckpoint) -> dict[str, float]:
    split = _SPLITS[name]
    quality = artifact_quality(cli, name, split, loaded)
    loss = float(quality.token_nats.mean())
    values = {"loss": loss, "perplexity": math.exp(loss), "bits_per_byte": quality.bits_per_byte}
    return {f"{split}/{metric}": value for metric, value in values.items()}


def _only_checkpoint(arguments: list[str]) -> bool:
    options = [argument.partition("=")[0] for argument in arguments if argument.startswith("-")]
    return set(options) <= {"--checkpoint", "--json"}
