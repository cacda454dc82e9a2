"""The bytes of tensors that are alive, counted operation by operation."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveMemory(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of tensors while it is switched on (``with LiveMemory() as memory``).

    It counts storages, so views cost nothing; memory that a kernel uses inside an operation is not seen.
    Stand-ins without values (``FakeTensorMode``, the meta device) are counted like other tensors.

    Args:
        present: Tensors that existed before, such as weights; they are never counted.

    Attributes:
        live_bytes: Bytes of new tensors that are alive, without gradients of parameters.
        gradient_bytes: Bytes of the gradients passed to :meth:`set_aside`.
        peak_live_bytes: Largest value of :attr:`live_bytes`.
        peak_bytes: Largest sum of both.
    """

    def __init__(self, present: Iterable[Tensor] = ()) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live_bytes = self.gradient_bytes = self.peak_live_bytes = self.peak_bytes = 0
        self._present = [tensor.untyped_storage() for tensor in present]  # kept, so that no id is reused
        self._sizes: dict[int, int] = {id(storage): 0 for storage in self._present}
        self._gradients: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._count(leaf.untyped_storage())
        return result

    def set_aside(self, parameter: Tensor) -> None:
        """Count a parameter's gradient separately (used with ``register_post_accumulate_grad_hook``)."""
        assert parameter.grad is not None
        key = id(parameter.grad.untyped_storage())
        if key in self._sizes and key not in self._gradients:
            self._gradients.add(key)
            self.live_bytes -= self._sizes[key]
            self.gradient_bytes += self._sizes[key]

    def _count(self, storage: torch.UntypedStorage) -> None:
        key = id(storage)
        if key in self._sizes:
            return
        self._sizes[key] = storage.nbytes()
        self.live_bytes += storage.nbytes()
        self.peak_live_bytes = max(self.peak_live_bytes, self.live_bytes)
        self.peak_bytes = max(self.peak_bytes, self.live_bytes + self.gradient_bytes)
        weakref.finalize(storage, self._forget, key).atexit = False

    def _forget(self, key: int) -> None:
        size = self._sizes.pop(key)
        if key in self._gradients:
            self._gradients.remove(key)
            self.gradient_bytes -= size
        else:
            self.live_bytes -= size
