"""What every test may rely on, whatever ran before it in the same process."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _denormal_numbers() -> Iterator[None]:
    """A command that ran in this process has torch flush denormal numbers; hypothesis draws them."""
    yield
    if "torch" in sys.modules:
        sys.modules["torch"].set_flush_denormal(False)


@pytest.fixture
def proxy() -> Iterator[tuple[str, list[str]]]:
    """The address of a browser's proxy, and every address that pages asked it for."""
    from watched_browser import watched_proxy

    with watched_proxy() as watched:
        yield watched
