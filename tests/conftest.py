"""What every test may rely on, whatever ran before it in the same process."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest

# What Lightning leaves behind where a test trains on several processes, or on one of a strategy for several.
_PLACES = ("RANK", "LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_PLACES_AT_FIRST = {name: os.environ.get(name) for name in _PLACES}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that have slow tests, so that no worker is alone with a long one at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(autouse=True)
def _place_among_processes() -> Iterator[None]:
    """A process that a later test starts would take these for its own place, and wait for the others."""
    yield
    for name, value in _PLACES_AT_FIRST.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


@pytest.fixture(autouse=True)
def _denormal_numbers() -> Iterator[None]:
    """A command that ran in this process has torch flush denormal numbers; hypothesis draws them."""
    yield
    if "torch" in sys.modules:
        sys.modules["torch"].set_flush_denormal(False)


@pytest.fixture(scope="session", autouse=True)
def _no_transformers_in_other_processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Commands that tests start find no transformers, as those of users do who never installed it.

    torchmetrics imports it whole wherever it finds a recent one, which takes about as long as torch.
    """
    folder = tmp_path_factory.mktemp("path")
    (folder / "transformers-0.dist-info").mkdir()
    metadata = "Metadata-Version: 2.1\nName: transformers\nVersion: 0\n"
    (folder / "transformers-0.dist-info" / "METADATA").write_text(metadata, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
        yield


@pytest.fixture
def proxy() -> Iterator[tuple[str, list[str]]]:
    """The address of a browser's proxy, and every address that pages asked it for."""
    from watched_browser import watched_proxy

    with watched_proxy() as watched:
        yield watched
