"""What a process does that prepares text, from its files to its stores."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from insight.data import BPETokenizerConfig, Preparation, TextFiles


def prepare(text: Path, cache: Path, say_ready: Callable[[], object] | None = None) -> None:
    """Prepare both parts of a text; it says right before that it is ready."""
    files = TextFiles(str(text), None, None, None, "text", 0.1, 0)
    preparation = Preparation(files, BPETokenizerConfig(500), cache)
    (say_ready or _print_ready)()
    for split in ("train", "validation"):
        store = preparation.store(split)
        print(split, store.path.name, store.num_tokens)


def _print_ready() -> None:
    print("ready", flush=True)
