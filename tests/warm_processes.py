"""Processes of their own that begin with everything imported: forked from one that did so once."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from typing import Any

_CONTEXT: Any = multiprocessing.get_context("forkserver" if hasattr(os, "fork") else "spawn")
_CONTEXT.set_forkserver_preload(
    ["insight.api.configuration", "insight.data.preparation", "insight.reporting.report"]
)


def start_warm(target: Callable[..., object], *arguments: Any) -> BaseProcess:
    """Start a process that calls a function of a module that it can import."""
    process: BaseProcess = _CONTEXT.Process(target=target, args=arguments)
    process.start()
    return process


def kill(process: BaseProcess) -> None:
    """End it at once, as if the machine had gone."""
    process.kill()
    process.join()
