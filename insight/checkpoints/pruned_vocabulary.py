"""Converts a checkpoint for a pruned tokenizer: the embedding and head keep the rows of the kept tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from insight.checkpoints.format import CONTENT
from insight.checkpoints.reader import read_checkpoint, saved_tokenizers
from insight.data.tokenizers.pruning import PrunedTokenizer
from insight.runtime.errors import CheckpointError
from insight.runtime.files import atomic_file

# The weights with a row per token; an untied head has its own.
_ROWS = ("embedding.weight", "head.weight")
# The entries that loading weights needs; optimizer, loops and position are dropped.
_KEPT = ("pytorch-lightning_version", "global_step", "epoch")


def write_pruned_checkpoint(path: Path, pruned: PrunedTokenizer, fingerprint: str, output: Path) -> None:
    """Write a checkpoint whose vocabulary is the kept tokens.

    Its logits are those of the old network for these tokens. Their probabilities are larger by the factor
    1 / (1 - p), where p is the old network's probability of the pruned tokens. It has no optimizer state:
    train it further with ``--init_from``.

    ``pruned`` is the checkpoint's own tokenizer after pruning, and ``fingerprint`` its fingerprint before.
    """
    contents = read_checkpoint(path)
    saved: dict[str, Any] = dict(contents[CONTENT])
    if saved.get("languages") is not None:
        problem = f"{path}: is a translation model, whose rows cannot be sliced"
        raise CheckpointError(problem, "train it with a smaller data.tokenizer.vocabulary_size")
    if saved_tokenizers(contents, path)[0].fingerprint() != fingerprint:
        problem = f"{path}: was trained with another tokenizer than the one that was pruned"
        raise CheckpointError(problem, "prune the tokenizer.json of its run")
    kept = torch.from_numpy(pruned.kept_ids)
    weights, num_sliced = {}, 0
    for name, tensor in contents["state_dict"].items():
        is_by_token = name.replace("_orig_mod.", "").removeprefix("network.") in _ROWS
        if is_by_token and tensor.shape[0] != len(pruned.old_to_new):
            sizes = f"{tensor.shape[0]} rows, the tokenizer {len(pruned.old_to_new)} tokens"
            raise CheckpointError(f"{path}: {name} has {sizes}", "is it damaged?")
        num_sliced += is_by_token
        weights[name] = tensor[kept].clone() if is_by_token else tensor
    if not num_sliced:
        raise CheckpointError(f"{path}: holds no embedding", "use a run of insight fit")
    saved.pop("open_window", None)
    saved |= {"tokenizer": pruned.tokenizer.to_json(), "vocabulary_size": pruned.tokenizer.vocabulary_size}
    kept_values = {key: contents[key] for key in _KEPT if key in contents}
    with atomic_file(output) as file:
        torch.save({**kept_values, "state_dict": weights, CONTENT: saved}, file)
