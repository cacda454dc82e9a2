"""Random states of Python, NumPy, torch and CUDA: set from one seed, captured and restored."""

from __future__ import annotations

import hashlib
import random
from typing import Any

from insight.runtime.errors import CheckpointError, ConfigError
from insight.runtime.messages import say

# The largest seed that all four generators accept (numpy.random.seed takes 32 bits).
MAX_SEED = 2**32 - 1
_DAMAGED = "the checkpoint is damaged; use another one"


def seed_everything(seed: int) -> None:
    """Seed every global generator with one number."""
    import numpy as np
    import torch

    if not 0 <= seed <= MAX_SEED:
        raise ConfigError(f"must be between 0 and {MAX_SEED}", "use for example 0", option="seed", value=seed)
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)  # this also seeds every CUDA device, or does so once CUDA starts


def begin_stream_of_process(rank: int) -> None:
    """Give each process of a distributed run its own random numbers, so that dropout differs between them.

    The first process keeps its state, and the others are seeded from that state and their ``rank``. Processes
    that must draw equal numbers pass the same ``rank``.
    """
    import torch

    if rank:
        present = torch.get_rng_state().numpy().tobytes()
        digest = hashlib.sha256(present + rank.to_bytes(8, "little")).digest()
        seed_everything(int.from_bytes(digest[:4], "little"))


def capture_random_states() -> list[dict[str, Any]]:
    """The :func:`capture_random_state` of every process, by rank; all processes must call it together."""
    import torch.distributed as distributed

    state = capture_random_state()
    if not (distributed.is_available() and distributed.is_initialized()):
        return [state]
    states: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(states, state)
    return states


def restore_random_states(
    states: list[dict[str, Any]], rank: int, num_processes: int, stream: int | None = None
) -> None:
    """Restore the state of a process that :func:`capture_random_states` saved.

    If the number of processes has changed, the first keeps its saved state, the others begin streams of their
    own from it, as at the start of a run, and a message says so.

    ``stream`` replaces ``rank`` in that case, for processes that must draw equal numbers.

    Raises:
        CheckpointError: The states are incomplete or damaged; no generator has been changed.
    """
    if not states:
        raise CheckpointError("random_states: the checkpoint holds none", _DAMAGED)
    if len(states) == num_processes:
        restore_random_state(states[rank])
        return
    say(
        f"random states: saved by {len(states)} processes, now {num_processes}; the first goes on with its "
        "own, the others are seeded from it"
    )
    restore_random_state(states[0])
    begin_stream_of_process(rank if stream is None else stream)


def capture_random_state() -> dict[str, Any]:
    """The state of every global generator, as primitives and tensors.

    ``torch.load(weights_only=True)`` can read it, so it can be part of a checkpoint.
    """
    import numpy as np
    import torch

    version, words, next_gauss = random.getstate()
    algorithm, keys, position, has_gauss, cached_gauss = np.random.get_state(legacy=True)
    return {
        "python": {"version": version, "words": list(words), "next_gauss": next_gauss},
        "numpy": {
            "algorithm": str(algorithm),
            "keys": torch.from_numpy(np.asarray(keys).astype(np.int64)),
            "position": int(position),
            "has_gauss": int(has_gauss),
            "cached_gauss": float(cached_gauss),
        },
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def restore_random_state(state: dict[str, Any]) -> None:
    """Restore the state that :func:`capture_random_state` returned.

    CUDA states are restored for the devices that still exist; a machine without CUDA ignores them.

    Raises:
        CheckpointError: ``state`` is incomplete or damaged; no generator has been changed.
    """
    import numpy as np
    import torch

    before = capture_random_state() if "python" in state else {}
    try:
        python, numpy = state["python"], state["numpy"]
        random.setstate((python["version"], tuple(python["words"]), python["next_gauss"]))
        keys = np.asarray(numpy["keys"].cpu().numpy(), dtype=np.uint32)
        rest = (numpy[name] for name in ("position", "has_gauss", "cached_gauss"))
        np.random.set_state((numpy["algorithm"], keys, *rest))
        torch.set_rng_state(state["torch"].cpu())
        if torch.cuda.is_available():
            for device, cuda_state in zip(range(torch.cuda.device_count()), state["cuda"], strict=False):
                torch.cuda.set_rng_state(cuda_state.cpu(), device)
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        if before:
            restore_random_state(before)
        problem = f"random_state cannot be restored ({type(error).__name__}: {error})"
        raise CheckpointError(problem, _DAMAGED) from error
