"""The bare encoders of two libraries on text in memory, an upper bound for the pipelines around them."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from benchmarks.peers.measured_encoding import use_cores
from benchmarks.peers.protocol import print_result

_PIECE = 1 << 17
_PIECES = 32


def main() -> None:
    """Encode once and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--text", type=Path, required=True, help=".txt, or .jsonl of documents")
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--library", choices=("fastokens", "tokenizers"), required=True)
    arguments = parser.parse_args()
    use_cores(1)
    batches = _batches(arguments.text)
    file = str(arguments.tokenizer / "tokenizer.json")
    seconds, num_tokens = (
        _fastokens(file, batches) if arguments.library == "fastokens" else _tokenizers(file, batches)
    )
    num_bytes = sum(len(text.encode("utf-8")) for batch in batches for text in batch)
    print_result({"seconds": seconds, "bytes": num_bytes, "tokens": num_tokens})


def _batches(path: Path) -> list[list[str]]:
    if path.suffix == ".txt":
        # Long pieces would be slower, since one wide character makes a whole string wide.
        with open(path, encoding="utf-8", newline="") as file:
            pieces = list(iter(lambda: file.read(_PIECE), ""))
        return [pieces[first : first + _PIECES] for first in range(0, len(pieces), _PIECES)]
    return [[json.loads(line)["text"] for line in path.read_text(encoding="utf-8").splitlines()]]


def _fastokens(file: str, batches: list[list[str]]) -> tuple[float, int]:
    import fastokens

    tokenizer: Any = fastokens.Tokenizer.from_file(file)
    started = time.perf_counter()
    num_tokens = 0
    for batch in batches:
        ids, _ = tokenizer.encode_batch_flat(batch, split_special_tokens=True)
        num_tokens += len(ids) // 4
    return time.perf_counter() - started, num_tokens


def _tokenizers(file: str, batches: list[list[str]]) -> tuple[float, int]:
    from tokenizers import Tokenizer

    tokenizer: Any = Tokenizer.from_file(file)
    tokenizer.encode_special_tokens = True
    started = time.perf_counter()
    num_tokens = 0
    for batch in batches:
        for encoded in tokenizer.encode_batch_fast(batch, add_special_tokens=False):
            num_tokens += len(encoded.ids)
    return time.perf_counter() - started, num_tokens


if __name__ == "__main__":
    main()
