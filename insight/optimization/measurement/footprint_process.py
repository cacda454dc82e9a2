"""The fresh process of :mod:`footprint`: load one model, read one token, print what that took as JSON."""

from __future__ import annotations

import gc
import json
import sys
import time
from pathlib import Path

import torch

from insight.optimization import load_model
from insight.runtime.resources import resident_bytes


def main(path: Path, device: str) -> None:
    """Load and print."""
    before = resident_bytes()
    started = time.perf_counter()
    loaded = load_model(path, device)
    load_seconds = time.perf_counter() - started
    # The pages of a weight count as memory once they have been touched. Compiling is no part of loading.
    with torch.inference_mode(), torch.compiler.set_stance("force_eager"):
        network = loaded.network
        network.logits(network(torch.zeros(1, 1, dtype=torch.int64, device=device)))
    ready_at = time.time()
    gc.collect()
    after = resident_bytes()
    reading = {
        "load_seconds": load_seconds,
        "ready_at": ready_at,
        "resident_bytes": after,
        "model_resident_bytes": after - before,
    }
    print(json.dumps(reading))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
