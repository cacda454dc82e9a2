"""How long a training step takes, with the time of validations and saves told apart from it."""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Callable

# The first steps choose kernels, compile and fill caches: they say nothing about the rest.
_STEPS_TO_SKIP = 2
# A step longer than this many medians met something that is not training (a neighbour on the machine,
# a page fault storm); it counts with this length.
_LONGEST_IN_MEDIANS = 3.0
_RECENT_STEPS = 20


class StepClock:
    """Collects the time from the start of one optimizer step to the start of the next.

    When a validation or a save follows a step, the step ends there, and the time until the next step is
    that of the pause (samples and logging at a validation belong to it).

    Args:
        window: Steps that the rate is taken over.
        now: The clock, in seconds.
    """

    def __init__(self, window: int = 100, now: Callable[[], float] = time.perf_counter) -> None:
        self._now = now
        self._seconds: deque[float] = deque(maxlen=window)
        self._tokens: deque[int] = deque(maxlen=window)
        self._validations: deque[float] = deque(maxlen=5)
        self._saving_seconds = 0.0
        self._num_steps = 0
        self._started: float | None = None
        self._step_tokens = 0
        self._pause: str | None = None
        self._pause_started = 0.0
        self._usual: float | None = None

    def start_step(self) -> None:
        """An optimizer step begins; everything since the last call belonged to the step before."""
        now = self._now()
        if self._started is not None:
            self._record(self._started, now)
        self._started, self._step_tokens, self._pause = now, 0, None

    def count_tokens(self, num_tokens: int) -> None:
        """The present step trains on ``num_tokens`` more tokens."""
        self._step_tokens += num_tokens

    def pause_for(self, reason: str) -> None:
        """The present step is followed by a ``"validation"`` or a ``"save"``; a validation may hold saves."""
        if self._pause is None:
            self._pause_started = self._now()
        if self._pause != "validation":
            self._pause = reason

    @property
    def seconds_per_step(self) -> float | None:
        """Mean of the window, outliers cut; ``None`` before the first usable step."""
        if self._usual is None and self._seconds:
            longest = _LONGEST_IN_MEDIANS * statistics.median(self._seconds)
            self._usual = statistics.fmean(min(seconds, longest) for seconds in self._seconds)
        return self._usual

    @property
    def recent_seconds_per_step(self) -> float | None:
        """Median of the last steps only; ``None`` before there are enough to tell a trend from chance."""
        if len(self._seconds) < _RECENT_STEPS:
            return None
        return statistics.median(list(self._seconds)[-_RECENT_STEPS:])

    @property
    def tokens_per_second(self) -> float | None:
        """Tokens of the window over its time; ``None`` before the first usable step."""
        return sum(self._tokens) / sum(self._seconds) if self._seconds else None

    @property
    def seconds_per_validation(self) -> float | None:
        """Median pause of the latest validations; ``None`` before the first."""
        return statistics.median(self._validations) if self._validations else None

    @property
    def seconds_per_step_for_saving(self) -> float:
        """Time of all saves outside validations, spread over all steps."""
        return self._saving_seconds / self._num_steps if self._num_steps else 0.0

    def _record(self, started: float, now: float) -> None:
        ended = now if self._pause is None else self._pause_started
        self._num_steps += 1
        if self._num_steps > _STEPS_TO_SKIP:
            self._seconds.append(ended - started)
            self._tokens.append(self._step_tokens)
            self._usual = None
        if self._pause == "validation":
            self._validations.append(now - ended)
        elif self._pause == "save":
            self._saving_seconds += now - ended
