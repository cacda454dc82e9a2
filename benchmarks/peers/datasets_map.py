"""Text to token ids with Hugging Face datasets: load, ``map`` batches through tokenizers, save."""

from __future__ import annotations

import time
from typing import Any

from benchmarks.peers.measured_encoding import parse_arguments, use_cores
from benchmarks.peers.protocol import print_result


def main() -> None:
    """Encode once and report."""
    arguments = parse_arguments(__doc__)
    use_cores(1)
    import datasets
    import tokenizers

    datasets.disable_progress_bars()
    tokenizer: Any = tokenizers.Tokenizer.from_file(str(arguments.tokenizer / "tokenizer.json"))
    tokenizer.encode_special_tokens = True
    started = time.perf_counter()
    dataset = datasets.load_dataset(
        "json", data_files=str(arguments.text), split="train", cache_dir=str(arguments.output / "cache")
    )

    def encode(batch: dict[str, list[str]]) -> dict[str, list[list[int]]]:
        encoded = tokenizer.encode_batch_fast(batch["text"], add_special_tokens=False)
        return {"ids": [item.ids for item in encoded]}

    mapped = dataset.map(encode, batched=True, remove_columns=["text"])
    mapped.save_to_disk(str(arguments.output / "mapped"))
    seconds = time.perf_counter() - started
    num_tokens = sum(len(ids) for ids in mapped["ids"])
    num_bytes = sum(len(text.encode("utf-8")) for text in dataset["text"])
    print_result({"seconds": seconds, "bytes": num_bytes, "tokens": num_tokens + len(mapped)})


if __name__ == "__main__":
    main()
