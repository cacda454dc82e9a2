"""Which weights exactly: a hash of the files that hold them."""

from __future__ import annotations

import hashlib
from pathlib import Path


def path_identity(path: Path) -> str:
    """SHA-256 of a checkpoint file, or of the files of an artefact folder with their names."""
    digest = hashlib.sha256()
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    for file in files:
        if path.is_dir():
            digest.update(f"{file.relative_to(path).as_posix()}\0".encode())
        with file.open("rb") as opened:
            while block := opened.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()[:32]
