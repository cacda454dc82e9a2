"""Find and read the embedded corpora; PROVENANCE.md beside this file says where each comes from."""

from __future__ import annotations

import lzma
from pathlib import Path

from insight.runtime.errors import DataError, nearest

_FOLDER = Path(__file__).parent
_SUFFIXES = (".txt.xz", ".tsv.xz")


def list_corpora() -> list[str]:
    """Names of the embedded corpora, sorted, e.g. ``["austen-emma", ...]``."""
    return sorted(_files())


def corpus_path(name: str) -> Path:
    """The file of an embedded corpus; a DataError names the corpora if there is none of this name."""
    files = _files()
    if name not in files:
        known = sorted(files)
        match = nearest(name, known)
        remedy = f"did you mean corpus:{match}?" if match else f"known: {', '.join(known)}"
        raise DataError(f"corpus:{name}: no such embedded corpus", remedy)
    return files[name]


def read_corpus(name: str) -> str:
    """The whole text of an embedded corpus; a DataError if there is no such corpus."""
    return lzma.decompress(corpus_path(name).read_bytes()).decode("utf-8")


def _files() -> dict[str, Path]:
    return {
        path.name.removesuffix(suffix): path for suffix in _SUFFIXES for path in _FOLDER.glob(f"*{suffix}")
    }
