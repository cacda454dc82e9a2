"""litgpt's ``TextFiles``, which encodes a folder of .txt files into chunks of litdata."""

from __future__ import annotations

import json
import shutil
import time

from benchmarks.peers.measured_encoding import parse_arguments, use_cores
from benchmarks.peers.protocol import print_result


def main() -> None:
    """Encode once and report."""
    arguments = parse_arguments(__doc__)
    use_cores(1)
    from litgpt import Tokenizer
    from litgpt.data import TextFiles

    folder = arguments.output / "text"
    shutil.copytree(arguments.text, folder)  # it writes beside the text
    tokenizer = Tokenizer(arguments.tokenizer)
    started = time.perf_counter()
    # Without validation text, litgpt sets the first file aside for it and encodes it like the others.
    data = TextFiles(train_data_path=folder)
    data.connect(tokenizer, batch_size=1, max_seq_length=256)
    data.prepare_data()
    seconds = time.perf_counter() - started
    num_bytes = sum(file.stat().st_size for file in folder.glob("*.txt"))
    print_result({"seconds": seconds, "bytes": num_bytes, "tokens": _num_tokens(data)})


def _num_tokens(data: object) -> int | None:
    """Number of tokens in its index, if the index has it."""
    total = 0
    for name in ("out_path_train", "out_path_val"):
        index = json.loads((getattr(data, name) / "index.json").read_text(encoding="utf-8"))
        for chunk in index["chunks"]:
            if chunk.get("dim") is None:
                return None
            total += int(chunk["dim"])
    return total


if __name__ == "__main__":
    main()
