"""The mean of the weights of several checkpoints, as a checkpoint of its own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from insight.checkpoints.format import CONTENT, CheckpointContent
from insight.checkpoints.reader import describe, is_resumable, network_weights, read_checkpoint
from insight.checkpoints.resume import check_fits
from insight.runtime.errors import CheckpointError
from insight.runtime.run_folder import RunFolder

# The entries that loading weights needs; optimizer, loops, callbacks and position are dropped.
_KEPT = ("pytorch-lightning_version", "global_step", "epoch")
_OPTION = "CHECKPOINTS"


def checkpoints_of(run: RunFolder) -> dict[int, Path]:
    """The checkpoints that the training of a run has saved and kept, by their optimizer steps.

    Raises:
        CheckpointError: A file cannot be read.
    """
    paths = [path for path in run.checkpoints.glob("*.ckpt") if not path.name.startswith(".")]
    kept = {}
    # Names of one step are links to one file, unless a training was repeated from an earlier step.
    for path in sorted(paths, key=lambda path: (path.stat().st_mtime_ns, path.name)):
        contents = read_checkpoint(path)
        if is_resumable(contents):  # else it is an average itself
            kept[_step(contents)] = path
    return dict(sorted(kept.items()))


def by_step(paths: Sequence[Path]) -> list[tuple[int, Path]]:
    """Optimizer step and path of each of the files, the newest last.

    Raises:
        CheckpointError: One cannot be read, or holds only weights, as an average does, while others
            are states of a training.
    """
    files = [(read_checkpoint(path), path) for path in paths]
    weights_alone = [path for contents, path in files if not is_resumable(contents)]
    if 0 < len(weights_alone) < len(files):
        problem = "holds only weights, as an average does, beside checkpoints of training"
        raise CheckpointError(problem, "leave it out", option=_OPTION, value=weights_alone[0])
    return sorted(((_step(contents), path) for contents, path in files), key=lambda each: each[0])


def _step(contents: dict[str, Any]) -> int:
    return int(contents.get("global_step", 0))


def average_checkpoints(paths: Sequence[Path]) -> dict[str, Any]:
    """The contents of a checkpoint whose weights are the mean of those of others.

    The sum is taken in float64, and the mean is rounded once to the type of the weights. The step is that of
    the last file. There is no optimizer state, so ``--init_from`` trains such a model further and
    ``--resume`` refuses it.

    Args:
        paths: Files of one network with the same tokenizers, the newest last.

    Raises:
        CheckpointError: A file cannot be read, or its network, tokenizers or languages are others than those
            of the last file.
    """
    files = [read_checkpoint(path) for path in paths]
    _check_equal(files, paths)
    newest, of_files = files[-1], [network_weights(contents) for contents in files]
    means: dict[tuple[Any, ...], torch.Tensor] = {}
    weights: dict[str, torch.Tensor] = {}
    for name, tensor in of_files[-1].items():
        # Tied weights are one tensor under two names, and stay one.
        place = (tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())
        if place not in means:
            means[place] = _mean([weights_of_file[name] for weights_of_file in of_files])
        weights[f"network.{name}"] = means[place]
    saved = CheckpointContent.from_dict(newest[CONTENT])
    content = CheckpointContent(
        network=saved.network,
        tokenizer=saved.tokenizer,
        vocabulary_size=saved.vocabulary_size,
        sequence_length=saved.sequence_length,
        random_states=[],
        canaries=saved.canaries,
        source_tokenizer=saved.source_tokenizer,
        languages=saved.languages,
    )
    kept = {key: newest[key] for key in _KEPT if key in newest}
    return {**kept, "state_dict": weights, CONTENT: content.to_dict()}


def _check_equal(files: Sequence[dict[str, Any]], paths: Sequence[Path]) -> None:
    """Refuse files of another network, tokenizer or languages than the last one."""
    newest = describe(files[-1], paths[-1])
    languages = files[-1][CONTENT].get("languages")
    for contents, path in zip(files, paths, strict=True):
        remedy = f"name checkpoints of one training; {paths[-1]} is the newest"
        try:
            check_fits(contents, path, newest.network_config, newest.tokenizers, _OPTION)
        except CheckpointError as error:
            if not error.option:  # the file itself is damaged
                raise
            raise error.otherwise(remedy) from error
        others = contents[CONTENT].get("languages")
        if others != languages:
            problem = f"translates in another way ({', '.join(others)}, not {', '.join(languages)})"
            raise CheckpointError(problem, remedy, option=_OPTION, value=path)


def _mean(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    total = torch.zeros_like(tensors[0], dtype=torch.float64)
    for tensor in tensors:
        total += tensor
    return (total / len(tensors)).to(tensors[0].dtype)
