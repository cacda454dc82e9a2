"""Find and read the embedded corpora; PROVENANCE.md next to this file states their sources."""

from __future__ import annotations

import lzma
from pathlib import Path

from insight.runtime.errors import DataError, nearest

_FOLDER = Path(__file__).parent
_SUFFIX = ".txt.xz"


def list_corpora() -> list[str]:
    """Names of the embedded corpora, sorted, e.g. ``["austen-emma", ...]``."""
    return sorted(path.name.removesuffix(_SUFFIX) for path in _FOLDER.glob(f"*{_SUFFIX}"))


def corpus_path(name: str) -> Path:
    """The file of an embedded corpus; a DataError names the corpora if there is none of this name."""
    known = list_corpora()
    if name not in known:
        match = nearest(name, known)
        remedy = f"did you mean corpus:{match}?" if match else f"known: {', '.join(known)}"
        raise DataError(f"corpus:{name}: no such embedded corpus", remedy)
    return _FOLDER / f"{name}{_SUFFIX}"


def read_corpus(name: str) -> str:
    """The whole text of an embedded corpus; a DataError if there is no such corpus."""
    return lzma.decompress(corpus_path(name).read_bytes()).decode("utf-8")
