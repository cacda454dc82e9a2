"""Writing beside the training: a copy of the state in host memory, and one thread that takes its time."""

from __future__ import annotations

import contextlib
import mmap
import os
import sys
import threading
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from lightning_utilities.core.apply_func import apply_to_collection

_OWN_PAGES_BYTES = 1 << 20
_LEAST_PRIORITY = 19


class BackgroundWriter:
    """Does one job at a time, in the order they come, in a thread of its own.

    A job that comes while another is running waits for it, so that there is never more than one copy of the
    state in memory. The process does not end before the last job has.

    Attributes:
        copies: Tensors of the last copy, for the next one.
    """

    def __init__(self) -> None:
        self.copies: list[torch.Tensor] = []
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint", initializer=_stand_back)
        self._job: Future[None] | None = None

    def submit(self, job: Callable[[], None]) -> None:
        """Begin a job.

        Raises:
            Exception: That of the job before, which is then the end of this one too.
        """
        self.wait()
        self._job = self._thread.submit(job)

    def wait(self) -> None:
        """Wait until everything is done.

        Raises:
            Exception: That of the last job.
        """
        job, self._job = self._job, None
        if job is not None:
            job.result()

    def close(self) -> None:
        """End the thread, after its last job."""
        self._thread.shutdown()


def _stand_back() -> None:
    """Leave the processors to the training wherever it wants them, and run when it waits."""
    if sys.platform == "linux":  # elsewhere a thread has no priority of its own
        with contextlib.suppress(OSError):  # where that is denied it goes on as it is
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _LEAST_PRIORITY)


def host_copy(checkpoint: dict[str, Any], earlier: list[torch.Tensor]) -> dict[str, Any]:
    """A checkpoint that training no longer changes: all its tensors copied, to the host's memory.

    Tensors that are one (tied weights) stay one.

    Args:
        checkpoint: What to copy.
        earlier: Copies that nobody needs any more. They are written over where they fit, since getting fresh
            memory takes longer than copying; afterwards the list holds the new copies.
    """
    unused: dict[tuple[Any, ...], list[torch.Tensor]] = defaultdict(list)
    for tensor in earlier:
        unused[tensor.dtype, tensor.shape, tensor.stride()].append(tensor)
    copies: dict[tuple[Any, ...], torch.Tensor] = {}

    def copied(tensor: torch.Tensor) -> torch.Tensor:
        layout = (tensor.dtype, tensor.shape, tensor.stride())
        place = (tensor.device, tensor.data_ptr(), *layout)
        if place not in copies:
            source, fitting = tensor.detach(), unused[layout]
            copies[place] = _copy_to(fitting.pop(), source) if fitting else _first_copy(source)
        return copies[place]

    copy: dict[str, Any] = apply_to_collection(checkpoint, torch.Tensor, copied)
    for device in {place[0] for place, tensor in copies.items() if tensor.is_pinned()}:
        torch.cuda.synchronize(device)  # copies to pinned memory go on by themselves
    earlier[:] = copies.values()
    return copy


def _first_copy(tensor: torch.Tensor) -> torch.Tensor:
    """A copy in the host's memory; that of a large one begins where a disk can read it from."""
    is_plain = type(tensor) is torch.Tensor and tensor.is_contiguous() and not tensor.is_quantized
    if tensor.nbytes < _OWN_PAGES_BYTES or not is_plain:
        return tensor.to("cpu", copy=True)
    if tensor.is_cuda:
        with contextlib.suppress(RuntimeError):  # there is only so much memory that may be pinned
            # To which a GPU copies several times faster.
            return _copy_to(torch.empty_like(tensor, device="cpu", pin_memory=True), tensor)
    memory = torch.frombuffer(mmap.mmap(-1, tensor.nbytes), dtype=tensor.dtype)
    return _copy_to(memory.as_strided(tensor.shape, tensor.stride()), tensor)


def _copy_to(target: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
    return target.copy_(source, non_blocking=target.is_pinned())
