"""The steps of nanoGPT's ``openwebtext/prepare.py``: tiktoken per document, then one uint16 file."""

from __future__ import annotations

import base64
import json
import time

import numpy as np

from benchmarks.peers.measured_encoding import parse_arguments, use_cores
from benchmarks.peers.protocol import print_result

_NUM_SHARDS = 1024
_END = "<|endoftext|>"


def main() -> None:
    """Encode once and report."""
    arguments = parse_arguments(__doc__)
    use_cores(1)
    import datasets
    import tiktoken

    datasets.disable_progress_bars()
    data = json.loads((arguments.tokenizer / "ranks.json").read_text(encoding="utf-8"))
    encoding = tiktoken.Encoding(
        "benchmark",
        pat_str=data["pattern"],
        mergeable_ranks={base64.b64decode(token): rank for token, rank in data["ranks"].items()},
        special_tokens=data["special"],
    )
    end = data["special"][_END]
    started = time.perf_counter()
    dataset = datasets.load_dataset(
        "json", data_files=str(arguments.text), split="train", cache_dir=str(arguments.output / "cache")
    )

    def encode(document: dict[str, str]) -> dict[str, object]:
        ids = [*encoding.encode_ordinary(document["text"]), end]
        return {"ids": ids, "length": len(ids)}

    mapped = dataset.map(encode, remove_columns=["text"])
    num_tokens = int(np.sum(mapped["length"], dtype=np.uint64))
    array = np.memmap(arguments.output / "train.bin", dtype=np.uint16, mode="w+", shape=(num_tokens,))
    num_shards = min(_NUM_SHARDS, len(mapped))
    position = 0
    for index in range(num_shards):
        shard = mapped.shard(num_shards=num_shards, index=index, contiguous=True).with_format("numpy")
        ids = np.concatenate(shard["ids"])
        array[position : position + len(ids)] = ids
        position += len(ids)
    array.flush()
    seconds = time.perf_counter() - started
    num_bytes = sum(len(text.encode("utf-8")) for text in dataset["text"])
    print_result({"seconds": seconds, "bytes": num_bytes, "tokens": num_tokens})


if __name__ == "__main__":
    main()
