"""Random states come back exactly, from a checkpoint that holds no code."""

from __future__ import annotations

import io
import random
from typing import Any

import numpy as np
import pytest
import torch

from insight.runtime.errors import CheckpointError, ConfigError
from insight.runtime.seeding import (
    begin_stream_of_process,
    capture_random_state,
    capture_random_states,
    restore_random_state,
    restore_random_states,
    seed_everything,
)


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


def streams(num_processes: int) -> list[list[float]]:
    """The first draws of each process of a run."""
    drawn = []
    for rank in range(num_processes):
        seed_everything(3)
        begin_stream_of_process(rank)
        drawn.append(draw())
    return drawn


def test_every_process_draws_numbers_of_its_own_and_the_first_as_if_alone() -> None:
    drawn = streams(4)
    assert all(drawn[a] != drawn[b] for a in range(4) for b in range(a))
    seed_everything(3)
    assert drawn[0] == draw()
    assert drawn == streams(4)


def test_every_process_gets_its_own_state_back(capsys: pytest.CaptureFixture[str]) -> None:
    states, expected = [], []
    for rank in range(3):
        seed_everything(10 + rank)
        (state,) = capture_random_states()  # alone, a process has only its own
        states.append(through_a_checkpoint(state))
        expected.append(draw())
    for rank in range(3):
        restore_random_states(states, rank, 3)
        assert draw() == expected[rank]
    assert capsys.readouterr().err == ""


def test_another_number_of_processes_begins_new_streams_from_the_first(
    capsys: pytest.CaptureFixture[str],
) -> None:
    seed_everything(10)
    states = capture_random_states()
    first = draw()
    states.append(capture_random_state())
    drawn = []
    for rank in range(4):
        restore_random_states(states, rank, 4)
        drawn.append(draw())
    said = capsys.readouterr().err.splitlines()
    assert "saved by 2 processes, now 4" in said[0]
    assert len(said) == 4
    assert drawn[0] == first
    assert all(drawn[a] != drawn[b] for a in range(4) for b in range(a))
    restore_random_states(states, 3, 4)
    assert draw() == drawn[3]
    restore_random_states(states, 3, 4, stream=1)  # as one of two that share a network
    assert draw() == drawn[1]


def test_a_checkpoint_without_states_is_refused() -> None:
    with pytest.raises(CheckpointError, match="random_states"):
        restore_random_states([], 0, 1)


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
