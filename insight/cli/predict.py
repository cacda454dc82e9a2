"""``insight predict``: how well a checkpoint predicts each document of a text, one JSON line a document."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from insight.cli.evaluate import artifact_quality, cli_for_checkpoint
from insight.runtime.errors import ConfigError, OutputError
from insight.runtime.files import atomic_write_text, ensure_writable
from insight.runtime.messages import say, silence_libraries

if TYPE_CHECKING:
    import torch

    from insight.checkpoints import LoadedCheckpoint
    from insight.cli.lightning import InsightCLI


def run(name: str, arguments: list[str]) -> int:
    """Run the command."""
    silence_libraries()
    cli, checkpoint, loaded = cli_for_checkpoint(name, arguments)
    if not cli.has_files("predict"):
        raise ConfigError("data.predict_files is not set", "give --data.predict_files FILES")
    output = Path(cli.config.output) if cli.config.output else None
    if output:
        if output.exists():
            raise OutputError(f"--output={output} exists already", "choose another name, or remove it first")
        ensure_writable(output.parent)
    lines = [json.dumps(document) for document in _documents(cli, checkpoint, loaded)]
    if output:
        atomic_write_text(output, "".join(f"{line}\n" for line in lines))
        say(f"{len(lines)} documents in {output}")
    else:
        sys.stdout.write("".join(f"{line}\n" for line in lines))
    return 0


def _documents(cli: InsightCLI, checkpoint: Path, loaded: LoadedCheckpoint) -> Iterator[dict[str, Any]]:
    """One record a document, in the order of the files."""
    import torch

    if checkpoint.is_dir():
        losses = torch.from_numpy(artifact_quality(cli, "predict", "predict", loaded).token_nats)
    else:
        losses = _predicted_losses(cli, checkpoint)
    store = cli.datamodule.store("predict")
    targets = torch.from_numpy(store.tokens(0, store.num_tokens))
    lengths = torch.from_numpy(cli.datamodule.tokenizer.token_byte_lengths())
    ends = (targets == store.end_of_text_id).nonzero().flatten() + 1
    start = 0
    for index, end in enumerate(ends.tolist()):
        loss, num_bytes = float(losses[start:end].sum()), int(lengths[targets[start:end]].sum())
        yield {
            "document": index,
            "bytes": num_bytes,
            "tokens": end - start,
            "loss": loss / (end - start),
            "bits_per_byte": loss / math.log(2) / num_bytes,
        }
        start = end


def _predicted_losses(cli: InsightCLI, checkpoint: Path) -> torch.Tensor:
    """Negative log-likelihood of every token in nats, float64."""
    import torch

    from insight import callbacks

    trainer = cli.make_trainer(default_callbacks=[callbacks.GracefulInterrupt(), callbacks.ProgressLine()])
    if trainer.world_size > 1:
        raise ConfigError(
            f"trainer.devices: {trainer.world_size} processes, but documents are put together in one",
            "use --trainer.devices 1",
        )
    batches: Any = trainer.predict(
        cli.model, datamodule=cli.datamodule, ckpt_path=str(checkpoint), weights_only=True
    )
    # Windows come in the order of the text, and only the last one is filled up.
    num_tokens = cli.datamodule.store("predict").num_tokens
    return torch.cat([batch.flatten() for batch in batches])[:num_tokens].double().cpu()
