"""Whether all processes of a run have the same configuration and the same code."""

from __future__ import annotations

import socket
from importlib.metadata import version
from pathlib import Path

import xxhash

import insight
from insight.cli.resuming import differences
from insight.runtime.errors import LaunchError
from insight.runtime.version import __version__

_SHOWN = 3


def identity_of(config: str) -> dict[str, str]:
    """What must be the same in every process, and where this one runs.

    Args:
        config: The complete configuration as YAML.
    """
    return {
        "host": socket.gethostname(),
        "insight": __version__,
        "torch": version("torch"),
        "lightning": version("lightning"),
        "source": source_hash(Path(insight.__file__).parent),
        "config": config,
    }


def check_agreement(first: dict[str, str], own: dict[str, str]) -> None:
    """Refuse to train where this process would do something else than the first.

    Args:
        first: :func:`identity_of` the first process.
        own: Of this one.

    Raises:
        LaunchError: Versions, source files or configurations differ.
    """
    for name in ("insight", "torch", "lightning", "source"):
        if own[name] != first[name]:
            what = "source files of insight" if name == "source" else name
            raise LaunchError(
                f"other code than rank 0 on {first['host']}: {what} {own[name]} on {own['host']}, "
                f"{first[name]} there",
                "install the same on every machine",
            )
    found = differences(first["config"], own["config"])
    if found:
        shown = ", ".join(f"{option}={here} (rank 0: {there})" for option, there, here in found[:_SHOWN])
        more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        raise LaunchError(
            f"another configuration than rank 0: {shown}{more}", "give every process the same command"
        )


def source_hash(package: Path) -> str:
    """xxh3 of names and contents of a package's Python files."""
    hasher = xxhash.xxh3_64()
    for path in sorted(package.rglob("*.py")):
        hasher.update(f"{path.relative_to(package).as_posix()}\n".encode())
        hasher.update(path.read_bytes())
    return str(hasher.hexdigest())
