"""How work on text is cut into tasks: neighbouring ranges together, enough to keep every worker busy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from insight.data.sources.ranges import TextRange
from insight.data.store.executors import Executor

# So many tasks a worker that all end at about the same time; not so many that starting them costs much.
_TASKS_A_WORKER = 16
_LEAST_TASK_BYTES, _MOST_TASK_BYTES = 1 << 22, 1 << 26
_MOST_RANGES = 1000


def group_ranges(
    executor: Executor, ranges: Sequence[TextRange], task_bytes: int | None = None
) -> Iterator[tuple[int, int]]:
    """Indices of the first range of each task and of the one behind its last; many small files are few tasks.

    Args:
        executor: Runs the tasks.
        ranges: All of the work, in order.
        task_bytes: About how much a task takes; what keeps every worker busy to the end if not given.
    """
    if task_bytes is None:
        share = sum(each.num_bytes for each in ranges) // (_TASKS_A_WORKER * executor.num_workers)
        task_bytes = min(_MOST_TASK_BYTES, max(_LEAST_TASK_BYTES, share))
    first = size = 0
    for index, text_range in enumerate(ranges, start=1):
        size += text_range.num_bytes
        if size >= task_bytes or index - first >= _MOST_RANGES or index == len(ranges):
            yield first, index
            first, size = index, 0
