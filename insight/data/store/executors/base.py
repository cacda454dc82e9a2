"""What every executor promises: one function over many small descriptions of work, results in their order."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TypeVar

from insight.runtime.component import Component

Item = TypeVar("Item")
Result = TypeVar("Result")

ATTEMPTS = 3
"""How many workers may die over one item before it is given up."""


class Executor(ABC):
    """Runs a function on items somewhere; a context manager that ends its workers.

    An item may run more than once, and twice at the same time: a worker that was lost may still be at it.
    So the function must leave the same behind however often it runs.
    """

    @property
    @abstractmethod
    def num_workers(self) -> int:
        """How many items run at once."""

    @abstractmethod
    def map(self, function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
        """The results in the order of the items, each as soon as it and all before it are there.

        Args:
            function: Importable by its name where it runs.
            items: Small, picklable; ``str`` of one is what messages call it.

        Raises:
            DataError: Its workers died over an item, again and again, or none is left.
            Exception: What ``function`` raised, for the first item that it failed for.
        """

    def close(self) -> None:  # noqa: B027 (there may be nothing to end)
        """End the workers, whatever they are doing; calling it again does nothing."""

    def __enter__(self) -> Executor:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


@dataclass(frozen=True)
class ExecutorConfig(Component):
    """Base of the executor configurations."""

    @abstractmethod
    def workers_for(self, num_bytes: int) -> int:
        """How many workers ``num_bytes`` of text are worth; 0 where this process does it best by itself."""

    @abstractmethod
    def build(self, num_workers: int) -> Executor:
        """An executor of so many workers.

        Args:
            num_workers: From :meth:`workers_for`; a cluster that runs already has its own number.

        Raises:
            ConfigError: A library is missing, or the cluster does not answer.
        """
