"""One trained tiny model for all tests, which must leave it as it is."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from tiny_model import trained

from insight.checkpoints import LoadedCheckpoint


@pytest.fixture(scope="session")
def learned() -> LoadedCheckpoint:
    """A model that has learnt its text; for tests that do not change it."""
    return trained()


@pytest.fixture
def untouched(learned: LoadedCheckpoint) -> Iterator[LoadedCheckpoint]:
    """The same, compared bit for bit with what it was when the test ends."""
    before = {name: tensor.clone() for name, tensor in learned.network.state_dict().items()}
    yield learned
    after = learned.network.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(type(parameter) is torch.nn.Parameter for parameter in learned.network.parameters())
    assert all(parameter.requires_grad for parameter in learned.network.parameters())
