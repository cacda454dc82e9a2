"""What a run would keep on the disk, against what is free."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from insight.callbacks import RunCheckpoint
from insight.data.store.format import OFFSET_DTYPE, token_dtype
from insight.runtime.files import ensure_writable

if TYPE_CHECKING:
    from insight.cli.lightning import InsightCLI

# Configuration, metrics and the page of a run.
_SMALL_FILES = 1 << 20


def checkpoint_writers(cli: InsightCLI) -> list[RunCheckpoint]:
    """The callbacks that write checkpoints in the run: the configured ones, else the usual one."""
    if cli.config.trainer.enable_checkpointing is False:
        return []
    return [callback for callback in cli.callbacks if isinstance(callback, RunCheckpoint)] or [
        RunCheckpoint()
    ]


def disk_of(
    cli: InsightCLI, memory: dict[str, Any] | None, writers: list[RunCheckpoint], num_steps: int | None
) -> dict[str, Any]:
    """Bytes of a checkpoint, of all that are there at once, and of the token ids, which are there already.

    Args:
        cli: What was configured; its data is set up.
        memory: Of training, with the bytes of weights and optimizer; ``None`` where they are not known.
        writers: Of :func:`checkpoint_writers`.
        num_steps: Of the run; ``None`` where only time limits it.

    Returns:
        Plain numbers; ``None`` where they are not known.
    """
    checkpoint = None
    if memory is not None:
        tokenizer = len(cli.datamodule.tokenizer.to_json().encode("utf-8"))
        averages = memory["average_bytes"] // 2
        checkpoint = memory["weight_bytes"] + memory["optimizer_bytes"] + averages + tokenizer
    num_checkpoints = sum(_most_files(writer, num_steps) for writer in writers)
    root = Path(cli.run_config.root).absolute()
    existing = next(folder for folder in (root, *root.parents) if folder.exists())
    return {
        "checkpoint_bytes": checkpoint,
        "num_checkpoints": num_checkpoints,
        "needed_bytes": None if checkpoint is None else checkpoint * num_checkpoints,
        "free_bytes": shutil.disk_usage(existing).free,
        "token_store_bytes": _token_store_bytes(cli.datamodule),
    }


def check_disk(cli: InsightCLI, disk: dict[str, Any] | None) -> None:
    """Try whether the run folder can be written to, and can hold what is needed if that is known.

    Raises:
        OutputError: It cannot be written to, or has not enough room.
    """
    needed = (disk or {}).get("needed_bytes") or 0
    ensure_writable(Path(cli.run_config.root) / cli.run_config.name, max(_SMALL_FILES, needed))


def _most_files(writer: RunCheckpoint, num_steps: int | None) -> int:
    """Different files at the worst moment: all that are kept, and the one that is being written."""
    kept = num_steps // writer.keep_every_n_steps if writer.keep_every_n_steps and num_steps else 0
    return writer.keep_best + kept + 2  # last.ckpt and the new one


def _token_store_bytes(datamodule: Any) -> int:
    width = token_dtype(datamodule.vocabulary_size).itemsize
    splits = datamodule.summary()["splits"].values()
    return sum(split["tokens"] * width + (split["documents"] + 1) * OFFSET_DTYPE.itemsize for split in splits)
