"""The footprint of a model: bytes on the disk, and memory and load time in a fresh process."""

from __future__ import annotations

import gc
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from insight.checkpoints.artifact import load_decoder
from insight.optimization.measurement.speed import turns
from insight.runtime.errors import InsightError
from insight.runtime.json_files import print_json
from insight.runtime.numbers import require_number
from insight.runtime.resources import resident_bytes

_PROCESS = "insight.optimization.measurement.footprint"
_LIMIT_SECONDS = 600


@dataclass(frozen=True)
class Footprint:
    """The size of a model on the disk, and its memory and load time.

    Times and memory are medians over the processes, each of which loads the model once and reads one token.
    The file is in the system's cache, since it has been read before.

    Attributes:
        disk_bytes: Bytes of all files. A ``.ckpt`` also contains optimizer state, up to twice the weights.
        resident_bytes: Resident memory of the whole process with the model ready, libraries included.
        model_resident_bytes: Growth of the resident memory while the model was loaded.
        load_seconds: Time to load the model, after all libraries are imported.
        start_seconds: Time from the launch of the process until the model is ready.
    """

    disk_bytes: int
    resident_bytes: int
    model_resident_bytes: int
    load_seconds: float
    start_seconds: float
    num_processes: int


def measure_footprint(
    paths: Mapping[str, Path], *, num_processes: int = 3, device: str = "cpu"
) -> dict[str, Footprint]:
    """Load every checkpoint or artefact in ``num_processes`` fresh processes, in turns.

    Raises:
        ConfigError: ``num_processes`` is below 1.
        InsightError: A process failed; the message contains its last line on stderr.
    """
    require_number("num_processes", num_processes, 3, whole=True, at_least=1)
    found: dict[str, list[dict[str, float]]] = {name: [] for name in paths}
    for index in range(num_processes):
        for name in turns(list(paths), index):
            found[name].append(_load_once(paths[name], device))
    return {name: _median(disk_bytes(paths[name]), readings) for name, readings in found.items()}


def disk_bytes(path: Path) -> int:
    """Bytes of a file, or of all files under a folder."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)


def weight_bytes(network: nn.Module) -> int:
    """Bytes of the weights, in memory or on the disk, without optimizer state.

    Tied matrices count once; a quantized matrix counts with its integers, scales and zero points.
    """
    storages: dict[int, int] = {}
    for tensor in _tensors(list(network.state_dict().values())):
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())


def _load_once(path: Path, device: str) -> dict[str, float]:
    command = [sys.executable, "-m", _PROCESS, str(path), device]
    launched, remedy = time.time(), "try `insight generate` with it"
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_LIMIT_SECONDS, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired as error:
        problem = f"{path}: loading it took more than {_LIMIT_SECONDS} s in a process of its own"
        raise InsightError(problem, remedy) from error
    if done.returncode != 0:
        line = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1][:300]
        raise InsightError(f"{path}: cannot be loaded in a process of its own ({line})", remedy)
    reading: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return {**reading, "start_seconds": reading["ready_at"] - launched}


def _median(size: int, readings: list[dict[str, float]]) -> Footprint:
    def median(name: str) -> float:
        return statistics.median(reading[name] for reading in readings)

    resident, of_model = int(median("resident_bytes")), int(median("model_resident_bytes"))
    seconds = (median("load_seconds"), median("start_seconds"))
    return Footprint(size, resident, of_model, *seconds, len(readings))


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    """The plain tensors in a value of a state dict; a quantized tensor consists of several."""
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)
    elif isinstance(value, torch.Tensor):
        flatten = getattr(value, "__tensor_flatten__", None)  # tensor subclasses that wrap others have this
        if flatten is None:
            yield value
        else:
            yield from _tensors([getattr(value, name) for name in flatten()[0]])


def _load_and_print(path: Path, device: str) -> None:
    """The fresh process: load one model, read one token, and print the measurements as JSON."""
    before = resident_bytes()
    started = time.perf_counter()
    loaded = load_decoder(path, device)
    load_seconds = time.perf_counter() - started
    # The pages of a weight count as resident once they have been read. Loading does not include compiling.
    with torch.inference_mode(), torch.compiler.set_stance("force_eager"):
        network = loaded.network
        network.logits(network(torch.zeros(1, 1, dtype=torch.int64, device=device)))
    ready_at = time.time()
    gc.collect()
    after = resident_bytes()
    sizes = {"resident_bytes": after, "model_resident_bytes": after - before}
    print_json({"load_seconds": load_seconds, "ready_at": ready_at, **sizes})


if __name__ == "__main__":
    _load_and_print(Path(sys.argv[1]), sys.argv[2])
