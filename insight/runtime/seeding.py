"""Random states of Python, NumPy, torch and CUDA: set from one seed, captured, restored."""

from __future__ import annotations

import random
from typing import Any

from insight.runtime.errors import CheckpointError, ConfigError

# The widest seed that all four generators accept (numpy.random.seed takes 32 bits).
MAX_SEED = 2**32 - 1


def seed_everything(seed: int) -> None:
    """Set every global generator from one number.

    Raises:
        ConfigError: ``seed`` is not between 0 and 2³² − 1.
    """
    import numpy as np
    import torch

    if not 0 <= seed <= MAX_SEED:
        raise ConfigError(f"seed={seed}: a seed must be between 0 and {MAX_SEED}", "use for example 0")
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)  # every CUDA device too, lazily when CUDA has not started


def capture_random_state() -> dict[str, Any]:
    """The state of every global generator, as primitives and tensors.

    ``torch.load(weights_only=True)`` reads it back, so it can be part of a checkpoint.
    """
    import numpy as np
    import torch

    version, words, next_gauss = random.getstate()
    algorithm, keys, position, has_gauss, cached_gauss = np.random.get_state(legacy=True)
    state: dict[str, Any] = {
        "python": {"version": version, "words": list(words), "next_gauss": next_gauss},
        "numpy": {
            "algorithm": str(algorithm),
            "keys": torch.tensor([int(key) for key in keys], dtype=torch.int64),
            "position": int(position),
            "has_gauss": int(has_gauss),
            "cached_gauss": float(cached_gauss),
        },
        "torch": torch.get_rng_state(),
        "cuda": [],
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def restore_random_state(state: dict[str, Any]) -> None:
    """Undo everything drawn since :func:`capture_random_state` made ``state``.

    CUDA states are restored for the devices that are still there; a machine without CUDA ignores them.

    Raises:
        CheckpointError: ``state`` is incomplete or damaged; no generator has been changed then.
    """
    import numpy as np
    import torch

    before = capture_random_state() if "python" in state else {}
    try:
        python, numpy = state["python"], state["numpy"]
        random.setstate((python["version"], tuple(python["words"]), python["next_gauss"]))
        keys = np.asarray(numpy["keys"].cpu().numpy(), dtype=np.uint32)
        np.random.set_state(
            (numpy["algorithm"], keys, numpy["position"], numpy["has_gauss"], numpy["cached_gauss"])
        )
        torch.set_rng_state(state["torch"].cpu())
        if torch.cuda.is_available():
            for device, cuda_state in zip(range(torch.cuda.device_count()), state["cuda"], strict=False):
                torch.cuda.set_rng_state(cuda_state.cpu(), device)
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        if before:
            restore_random_state(before)
        raise CheckpointError(
            f"random_state cannot be restored ({type(error).__name__}: {error})",
            "the checkpoint is damaged; use another one",
        ) from error
