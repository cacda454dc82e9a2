"""Which documents a suspicious step was made of: a line of JSON a step, for somebody to look at."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from insight.data.batches import LanguageModelBatch
from insight.runtime.files import writing_to
from insight.training.parallel import num_replicas, replica_rank

FILE_NAME = "suspicious_batches.jsonl"
"""In the run folder; processes other than the first write ``suspicious_batches.rankN.jsonl``."""
_HEAD_TOKENS = 32
_HEAD_CHARACTERS = 80
_SAID_CHARACTERS = 60


def record_suspects(
    module: Any, batches: Sequence[LanguageModelBatch], loss: float, reason: str, is_taken: bool
) -> str:
    """Write down what this process saw of a step.

    Args:
        module: In training; its data module stands behind the batches.
        batches: Micro-batches of the step, on this process.
        loss: Of the global batch.
        reason: Why the step is suspicious.
        is_taken: Whether the optimizer takes it.

    Returns:
        Where it was written and what the first document is, for people.

    Raises:
        OutputError: It cannot be written.
    """
    trainer = module.trainer
    samples = samples_of(batches, trainer.datamodule, replica_rank(trainer), num_replicas(trainer))
    path = Path(trainer.default_root_dir) / (
        FILE_NAME if trainer.is_global_zero else f"suspicious_batches.rank{trainer.global_rank}.jsonl"
    )
    record = {
        "step": trainer.global_step,
        "rank": trainer.global_rank,
        "loss": loss if math.isfinite(loss) else str(loss),  # JSON has no NaN
        "reason": reason,
        "is_taken": is_taken,
        "samples": samples,
    }
    with writing_to(path), path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record, ensure_ascii=False) + "\n")
    if not samples:
        return f"see {path}"
    heads = [head for sample in samples for head in sample["documents"]] or [""]
    first, last = samples[0]["sample"], samples[-1]["sample"]
    return f"samples {first:,} to {last:,} are in {path}, the first begins {heads[0][:_SAID_CHARACTERS]!r}"


def samples_of(
    batches: Sequence[LanguageModelBatch], data: Any, replica: int, num_of_replicas: int
) -> list[dict[str, Any]]:
    """The rows of micro-batches: which sample of the run each is, and how its documents begin.

    Args:
        batches: The last ones that were counted, oldest first.
        data: The data module whose position is behind them.
        replica: Number of this copy of the network, which has every ``num_of_replicas``-th sample.
        num_of_replicas: Copies that read different text.
    """
    counts = [batch.num_samples or len(batch.input_ids) for batch in batches]
    position = int(data.state_dict()["num_samples_consumed"]) - sum(counts) * num_of_replicas
    rows = []
    for batch, count in zip(batches, counts, strict=True):
        inputs = batch.input_ids.cpu()
        documents = None if batch.document_ids is None else batch.document_ids.cpu()
        for row, ids in enumerate(inputs):
            # A sample may have been cut into several rows.
            sample = position + row * count // len(inputs) * num_of_replicas + replica
            own = None if documents is None else documents[row]
            rows.append({"sample": sample, "row": row, "documents": document_heads(ids, own, data.tokenizer)})
        position += count * num_of_replicas
    return rows


def document_heads(input_ids: torch.Tensor, document_ids: torch.Tensor | None, tokenizer: Any) -> list[str]:
    """How each document of a row begins, as text; what holds no text is left out.

    Args:
        input_ids: int64 ``(sequence,)``.
        document_ids: int64 ``(sequence,)``, or ``None`` where the end-of-text token separates documents.
        tokenizer: That of the data.
    """
    if document_ids is None:
        starts = torch.nonzero(input_ids == tokenizer.end_of_text_id).flatten() + 1
    else:
        starts = torch.nonzero(document_ids[1:] != document_ids[:-1]).flatten() + 1
    bounds = [0, *starts.tolist(), len(input_ids)]
    heads = []
    for start, stop in itertools.pairwise(bounds):
        ids = input_ids[start : min(stop, start + _HEAD_TOKENS)].tolist()
        text = tokenizer.decode(ids)[:_HEAD_CHARACTERS]
        if text:
            heads.append(text)
    return heads
