"""Other projects' loaders over the same tokens, written as in those projects. Needs numpy and torch.

``nanogpt``: random windows of a memory-mapped file for every batch (`get_batch` of its train.py), without
epochs and with overlap. ``dataloader``: a map-style dataset of the windows of an epoch in torch's DataLoader,
shuffled and collated row by row. ``datasets``: equal windows as rows of a Hugging Face dataset in torch
format. ``litdata``: chunks on disk written by `optimize` and read by StreamingDataset and TokensLoader, as in
litgpt's TextFiles.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.peers.loader_clock import BATCH_SIZE, SEQUENCE_LENGTH, measure
from benchmarks.peers.protocol import print_result

Loader = Callable[[], Iterator[torch.Tensor]]
_CHUNK_TOKENS = 1 << 20


class Windows(torch.utils.data.Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Inputs and targets of the windows of ``path``, a file of uint16 token ids, from its beginning."""

    def __init__(self, path: Path) -> None:
        self.tokens = np.memmap(path, dtype=np.uint16, mode="r")

    def __len__(self) -> int:
        return (len(self.tokens) - 1) // SEQUENCE_LENGTH

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        start = index * SEQUENCE_LENGTH
        window = torch.from_numpy(self.tokens[start : start + SEQUENCE_LENGTH + 1].astype(np.int64))
        return window[:-1], window[1:]


def nanogpt(path: Path, num_workers: int, folder: Path) -> Loader:
    def batches() -> Iterator[torch.Tensor]:
        while True:
            # The file is mapped for every batch, since an open mapping keeps its pages in memory.
            data = np.memmap(path, dtype=np.uint16, mode="r")
            starts = torch.randint(len(data) - SEQUENCE_LENGTH, (BATCH_SIZE,)).tolist()
            rows = [data[start : start + SEQUENCE_LENGTH].astype(np.int64) for start in starts]
            torch.stack([torch.from_numpy(row) for row in rows])
            rows = [data[start + 1 : start + 1 + SEQUENCE_LENGTH].astype(np.int64) for start in starts]
            yield torch.stack([torch.from_numpy(row) for row in rows])

    return batches


def dataloader(path: Path, num_workers: int, folder: Path) -> Loader:
    return _endless(Windows(path), num_workers, shuffle=True, take=lambda batch: batch[1])


def datasets(path: Path, num_workers: int, folder: Path) -> Loader:
    from datasets import Dataset, load_from_disk

    where = folder / "datasets"
    if not where.exists():
        tokens = np.memmap(path, dtype=np.uint16, mode="r")

        def rows() -> Iterator[dict[str, Any]]:
            for start in range(0, len(tokens) - SEQUENCE_LENGTH - 1, SEQUENCE_LENGTH):
                yield {"window": tokens[start : start + SEQUENCE_LENGTH + 1]}

        Dataset.from_generator(rows, cache_dir=str(folder / "datasets_cache")).save_to_disk(where)
    rows_of_text = load_from_disk(str(where)).with_format("torch")
    return _endless(rows_of_text, num_workers, shuffle=True, take=lambda batch: batch["window"][:, 1:])


def litdata(path: Path, num_workers: int, folder: Path) -> Loader:
    from litdata import StreamingDataset, TokensLoader, optimize

    where = folder / "litdata"
    if not (where / "index.json").exists():
        num_tokens = path.stat().st_size // 2
        optimize(
            fn=ReadChunk(path),
            inputs=list(range(0, num_tokens, _CHUNK_TOKENS)),
            output_dir=str(where),
            chunk_bytes="50MB",
            num_workers=1,
            item_loader=TokensLoader(),
        )
    dataset = StreamingDataset(
        str(where), item_loader=TokensLoader(block_size=SEQUENCE_LENGTH + 1), shuffle=True, drop_last=True
    )
    return _endless(dataset, num_workers, shuffle=None, take=lambda batch: batch[:, 1:].long())


class ReadChunk:
    """A picklable function that reads tokens from a position of ``path``, a file of uint16 token ids."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self, start: int) -> Iterator[torch.Tensor]:
        tokens = np.memmap(self.path, dtype=np.uint16, mode="r")[start : start + _CHUNK_TOKENS]
        yield torch.from_numpy(tokens.astype(np.int32))


def _endless(
    dataset: Any, num_workers: int, shuffle: bool | None, take: Callable[[Any], torch.Tensor]
) -> Loader:
    def batches() -> Iterator[torch.Tensor]:
        loader: Any = torch.utils.data.DataLoader(
            dataset, batch_size=BATCH_SIZE, shuffle=shuffle, num_workers=num_workers, drop_last=True
        )
        while True:
            yield from map(take, loader)

    return batches


RECIPES = {"nanogpt": nanogpt, "dataloader": dataloader, "datasets": datasets, "litdata": litdata}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=sorted(RECIPES))
    parser.add_argument("--tokens", type=Path, required=True, help="uint16 ids, one stream")
    parser.add_argument("--folder", type=Path, required=True, help="where what must be made first is kept")
    parser.add_argument("--num-workers", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=5.0)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    loader = RECIPES[arguments.kind](arguments.tokens, arguments.num_workers, arguments.folder)
    print_result(measure(loader, arguments.seconds, arguments.tokens.stat().st_size // 2))
