"""Insight from a file to a published store, in a fresh cache: hashing, encoding, flushing, verification."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from pathlib import Path

from benchmarks.peers.measured_encoding import use_cores
from benchmarks.peers.protocol import print_result

_WITHOUT_FAST = Path(__file__).resolve().parent / "without_fast"


def main() -> None:
    """Encode once and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, help="its folder; a token a byte if not given")
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--cores", type=int, default=1)
    parser.add_argument("--workers", type=int, default=0, help="0: this process")
    parser.add_argument("--without-fast", action="store_true")
    parser.add_argument("--keep", action="store_true", help="the cache as it is, before and after")
    arguments = parser.parse_args()
    use_cores(arguments.cores)
    if arguments.without_fast:
        # The workers inherit only the environment of this process, so it is set there as well.
        sys.path.insert(0, str(_WITHOUT_FAST))
        os.environ["PYTHONPATH"] = os.pathsep.join([str(_WITHOUT_FAST), os.environ.get("PYTHONPATH", "")])

    import tokenizers  # noqa: F401 (imports are not counted for any contender)

    from insight.data import ByteTokenizerConfig, Preparation, PretrainedTokenizerConfig, TextFiles
    from insight.data.encoding.executors import LocalProcesses

    if not arguments.keep:
        shutil.rmtree(arguments.cache, ignore_errors=True)
    files = TextFiles(str(arguments.text), None, None, None, "text", 0.0, 0)
    config = (
        PretrainedTokenizerConfig(str(arguments.tokenizer)) if arguments.tokenizer else ByteTokenizerConfig()
    )
    started = time.perf_counter()
    tokenizer = config.build(())
    encoder = tokenizer.encoder
    loaded = time.perf_counter()
    preparation = Preparation(files, tokenizer, arguments.cache, executor=LocalProcesses(arguments.workers))
    store = preparation.store("train")
    seconds = time.perf_counter() - loaded
    print_result(
        {
            "seconds": seconds,
            "bytes": store.num_bytes,
            "tokens": store.num_tokens,
            "store_bytes": sum(file.stat().st_size for file in store.path.iterdir()),
            "encoder": encoder,
            "loading_seconds": loaded - started,
        }
    )
    if not arguments.keep:
        shutil.rmtree(arguments.cache, ignore_errors=True)


if __name__ == "__main__":
    main()
