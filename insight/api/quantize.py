"""Compress a model: measure ways to quantize it on this machine and write the best one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from insight.optimization.config import check_search, plan
from insight.runtime.files import ensure_writable, require_new
from insight.runtime.processes import one_command
from insight.runtime.run_folder import run_of_checkpoint

if TYPE_CHECKING:
    from insight.optimization import SearchResult


@one_command()
def quantize(
    checkpoint: str | Path,
    output: str | Path,
    *,
    method: Literal["auto", "bf16", "int8_weight_only", "int8_dynamic", "int8_static"] = "auto",
    compile: Literal["auto", "on", "off"] = "auto",
    dtype: Literal["float32", "bfloat16"] | None = None,
    group_size: int | None = None,
    max_quality_loss: float = 0.005,
    seconds: float = 45.0,
    device: str = "cpu",
    config: str | Path | None = None,
) -> SearchResult:
    """Compress a model as ``insight quantize`` does.

    Args:
        checkpoint: A run folder (its best checkpoint) or a ``.ckpt`` file.
        output: The folder to write; it must not exist.
        method: One method, or auto, which measures all and takes the best; that may be to leave the model
            alone, and the folder then holds the report of the measurements only.
        compile: Whether the result runs through torch.compile: on, off, or auto to try both.
        dtype: Type of the values that stay floating point in an int8 model; without it the faster one here.
        group_size: Inputs that share a scale in int8_weight_only; without it there is one scale per output.
        max_quality_loss: Allowed loss, as a share of the bits per byte (upper end of its 95% interval).
        seconds: Time for measuring, compiling included.
        device: Where the model is quantized and measured: cpu, cuda, cuda:1, mps.
        config: Configuration that names the text, for a checkpoint outside of a run folder.

    Raises:
        InsightError: The error that the command prints.
    """
    output = Path(output)
    require_new(output)
    check_search(max_quality_loss, seconds)
    ensure_writable(output.parent)
    configs = plan(method, compile, dtype, group_size)

    from insight.api.evaluate import cli_for_checkpoint
    from insight.checkpoints.artifact import load_decoder
    from insight.optimization.search import compress
    from insight.runtime.hardware import usable_device

    place = usable_device(device)
    options = [] if config is None else ["--config", str(config)]
    cli, path, loaded = cli_for_checkpoint(
        "validate", ["--checkpoint", str(checkpoint), *options], load_decoder
    )
    loaded.network.to(place)
    cli.datamodule.setup("fit")
    run = run_of_checkpoint(path)
    return compress(
        loaded,
        configs,
        validation=cli.datamodule.store("validation"),
        train=cli.datamodule.store("train"),
        folder=output,
        may_keep=method == "auto",
        max_quality_loss=max_quality_loss,
        seconds=seconds,
        run_config=Path(config) if config else run.config_path if run else None,
    )
