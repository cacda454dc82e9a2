"""Make a large text, or encode it in a process that does nothing else."""

from __future__ import annotations

import argparse
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.peers.protocol import print_result
from insight.data import BPETokenizerConfig, Preparation, TextFiles, load_tokenizer
from insight.data.encoding.executors import InProcess, LocalProcesses
from insight.runtime.resources import peak_resident_bytes, resident_bytes

_BLOCK_WORDS = 200_000
_VOCABULARY_SIZE = 4096
_SYLLABLES = ("ta", "ren", "mi", "sol", "ka", "vor", "li", "ne", "du", "shi", "pa", "quo", "zet", "bur")


def _line(words: list[str]) -> str:
    return " ".join(words) + " "


def _lines(words: list[str]) -> str:
    return "\n".join(words) + "\n"


def _records(words: list[str]) -> str:
    return "".join(f'{{"text": "{word}"}}\n' for word in words)


KINDS: dict[str, tuple[str, Callable[[list[str]], str]]] = {
    "one line": ("line.txt", _line),
    "one word a line": ("lines.txt", _lines),
    "one word a record": ("records.jsonl", _records),
}


def make(folder: Path, kind: str, num_bytes: int, num_words: int) -> dict[str, Any]:
    """Write a text of one kind until it has so many bytes or words, and a tokenizer for it."""
    name, write = KINDS[kind]
    source = random.Random(0)
    vocabulary = ["".join(source.choices(_SYLLABLES, k=source.randint(1, 4))) for _ in range(50_000)]
    folder.mkdir(parents=True, exist_ok=True)
    size = written = 0
    with open(folder / name, "w", encoding="ascii") as file:
        while size < num_bytes and written < num_words:
            words = source.choices(vocabulary, k=min(_BLOCK_WORDS, num_words - written))
            size += file.write(write(words))
            written += len(words)
    tokenizer = folder / "tokenizer.json"
    if not tokenizer.exists():
        BPETokenizerConfig(_VOCABULARY_SIZE).build([_line(vocabulary)]).save(tokenizer)
    return {"bytes": size, "words": written}


def encode(folder: Path, kind: str, encoder: str, fraction: float, num_workers: int) -> dict[str, Any]:
    """Encode the file into published stores in a new cache; returns the peak memory of this process."""
    if encoder == "tokenizers":
        from insight.data.tokenizers import library as segmented

        segmented.proven_encoder = lambda *_: None  # type: ignore[assignment]
    cache = folder / "cache"
    shutil.rmtree(cache, ignore_errors=True)
    tokenizer = load_tokenizer(folder / "tokenizer.json")
    files = TextFiles(str(folder / KINDS[kind][0]), None, None, None, "text", fraction, 0)
    executor = LocalProcesses(num_workers) if num_workers else InProcess()
    preparation = Preparation(files, tokenizer, cache, executor=executor)
    at_start = resident_bytes()
    started = time.perf_counter()
    stores = [preparation.store(split) for split in ("train", "validation") if preparation.has(split)]
    seconds = time.perf_counter() - started
    result = {
        "file_bytes": (folder / KINDS[kind][0]).stat().st_size,
        "peak_bytes": peak_resident_bytes(),
        "bytes_at_start": at_start,
        "seconds": seconds,
        "num_tokens": sum(store.num_tokens for store in stores),
        "num_documents": sum(store.num_documents for store in stores),
        "text_bytes": sum(store.num_bytes for store in stores),
        "encoder": tokenizer.encoder,
    }
    del stores
    shutil.rmtree(cache)
    return result


def main() -> None:
    """Make or encode, as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=("make", "encode"))
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--kind", choices=tuple(KINDS), required=True)
    parser.add_argument("--bytes", type=int, default=0)
    parser.add_argument("--words", type=int, default=1 << 62)
    parser.add_argument("--encoder", choices=("fastest", "tokenizers"), default="fastest")
    parser.add_argument("--fraction", type=float, default=0.0)
    parser.add_argument("--num-workers", type=int, default=0, help="0 encodes in this process")
    options = parser.parse_args()
    if options.action == "make":
        print_result(make(options.folder, options.kind, options.bytes, options.words))
    else:
        workers = options.num_workers
        print_result(encode(options.folder, options.kind, options.encoder, options.fraction, workers))


if __name__ == "__main__":
    main()
