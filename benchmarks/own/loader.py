"""Insight's loader over a large store, and that store, which the other loaders read as one file."""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.peers.loader_clock import BATCH_SIZE, SEQUENCE_LENGTH, measure
from benchmarks.peers.protocol import print_result
from insight.data import Mixture, Packing, SamplingConfig, TokenStore, Windows
from insight.data.loaders import BatchLoader, TrainingBatches
from insight.data.sampling import Corpus
from insight.data.store import StoreWriter
from insight.data.tokenizers import ByteTokenizer, EncodedBatch

STORE, TOKENS = "store", "tokens.bin"
_NUM_DOCUMENTS = 10_000  # per write
SAMPLINGS: dict[str, SamplingConfig] = {
    "windows": Windows(),
    "packed": Packing(),
    "mixture": Mixture({"all": 0.7, "again": 0.3}),
}


def main() -> None:
    """Make the store or measure the loader, and print the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=("make", *SAMPLINGS))
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--gigabytes", type=float, default=1.0, help="of the store that is made")
    parser.add_argument("--num-workers", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=5.0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print_result(_make(arguments) if arguments.task == "make" else _measure(arguments))


def _make(arguments: argparse.Namespace) -> dict[str, Any]:
    """Write random tokens in documents of 400 on average (log-normal) as a store and as one flat file."""
    folder: Path = arguments.folder / STORE
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    writer = StoreWriter(folder, ByteTokenizer())
    while writer.num_tokens * 2 < arguments.gigabytes * 1e9:
        lengths = np.clip(generator.lognormal(5.5, 1.0, _NUM_DOCUMENTS).astype(np.int64), 1, 100_000)
        ids = generator.integers(0, 256, int(lengths.sum()), dtype=np.int64)
        offsets = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(lengths)])
        writer.append(EncodedBatch(ids, offsets), len(ids))
    manifest = writer.close({})
    with open(arguments.folder / TOKENS, "wb") as flat:
        for shard in manifest.shards:
            with open(folder / f"{shard.name}.bin", "rb") as file:
                shutil.copyfileobj(file, flat, 1 << 24)
    return {"num_tokens": manifest.num_tokens, "num_documents": manifest.num_documents}


def _measure(arguments: argparse.Namespace) -> dict[str, Any]:
    begun = time.perf_counter()
    store = TokenStore(arguments.folder / STORE)
    sampling = SAMPLINGS[arguments.task]
    names = list(sampling.weights) if isinstance(sampling, Mixture) else [""]
    samples = sampling.build([Corpus(name, name, store) for name in names], SEQUENCE_LENGTH, 0)
    setup_seconds = time.perf_counter() - begun

    def batches() -> Iterator[torch.Tensor]:
        made = TrainingBatches(samples, BATCH_SIZE, 0, 1)
        first = 0
        while True:
            for batch in BatchLoader(made, made.num_batches, lambda: first, arguments.num_workers):  # noqa: B023
                yield batch.targets
            first += made.num_batches

    result = measure(batches, arguments.seconds, store.num_tokens)
    return {**result, "setup_seconds": setup_seconds, "waste": samples.facts().get("waste", 0.0)}


if __name__ == "__main__":
    main()
