"""No workers: one item after the other, here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from insight.data.store.executors.base import Executor, ExecutorConfig, Item, Result


class InProcessExecutor(Executor):
    """Runs every item in this process when its result is asked for."""

    @property
    def num_workers(self) -> int:
        return 1

    def map(self, function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
        return map(function, items)


@dataclass(frozen=True)
class InProcess(ExecutorConfig):
    """Encode text in this process, whatever its size."""

    def workers_for(self, num_bytes: int) -> int:
        """None."""
        return 0

    def build(self, num_workers: int) -> InProcessExecutor:
        """The executor."""
        return InProcessExecutor()
