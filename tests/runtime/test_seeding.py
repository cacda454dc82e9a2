"""Random states come back exactly, from a checkpoint that holds no code."""

from __future__ import annotations

import io
import random
from typing import Any

import numpy as np
import pytest
import torch

from insight.runtime.errors import CheckpointError, ConfigError
from insight.runtime.seeding import capture_random_state, restore_random_state, seed_everything


def draw() -> list[float]:
    """Numbers from every generator; the odd count of normals leaves one cached in Python and NumPy."""
    return [
        *(random.random() for _ in range(3)),
        random.gauss(0, 1),
        *np.random.rand(3).tolist(),
        float(np.random.randn()),
        *torch.rand(5).tolist(),
        float(torch.randn(1)),
        *torch.nn.functional.dropout(torch.ones(16)).tolist(),
    ]


@pytest.fixture(autouse=True)
def _keep_states() -> Any:
    state = capture_random_state()
    yield
    restore_random_state(state)


def through_a_checkpoint(state: dict[str, Any]) -> dict[str, Any]:
    buffer = io.BytesIO()
    torch.save({"random_state": state}, buffer)
    buffer.seek(0)
    loaded: dict[str, Any] = torch.load(buffer, weights_only=True)["random_state"]
    return loaded


def test_seed_decides_everything() -> None:
    seed_everything(7)
    first = draw()
    seed_everything(7)
    assert draw() == first
    seed_everything(8)
    assert draw() != first


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_seed_out_of_range(seed: int) -> None:
    with pytest.raises(ConfigError, match=f"seed={seed}"):
        seed_everything(seed)


def test_state_survives_a_checkpoint_without_code() -> None:
    seed_everything(3)
    draw()
    state = through_a_checkpoint(capture_random_state())
    expected = draw()
    seed_everything(99)
    restore_random_state(state)
    assert draw() == expected


@pytest.mark.parametrize("generator", ["python", "numpy", "torch"])
def test_a_generator_that_is_not_restored_is_noticed(generator: str) -> None:
    """The twin of the test above: each generator's state matters to what it compares."""
    seed_everything(3)
    state = capture_random_state()
    expected = draw()
    seed_everything(99)
    state[generator] = capture_random_state()[generator]
    restore_random_state(state)
    assert draw() != expected


@pytest.mark.parametrize(
    "damage",
    [
        lambda state: state.pop("torch"),
        lambda state: state.update(python=None),
        lambda state: state.update(python={"version": 3, "words": [1, 2], "next_gauss": None}),
        lambda state: state.update(torch=torch.zeros(3, dtype=torch.uint8)),
        lambda state: state["numpy"].update(algorithm="MT1"),
    ],
)
def test_damaged_state_is_refused_and_changes_nothing(damage: Any) -> None:
    state = capture_random_state()
    damage(state)
    seed_everything(5)
    expected = draw()
    seed_everything(5)
    with pytest.raises(CheckpointError, match="random_state cannot be restored"):
        restore_random_state(state)
    assert draw() == expected


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_state() -> None:
    seed_everything(3)
    torch.rand(5, device="cuda")
    state = through_a_checkpoint(capture_random_state())
    expected = torch.rand(5, device="cuda").tolist()
    seed_everything(4)
    restore_random_state(state)
    assert torch.rand(5, device="cuda").tolist() == expected
