"""Communication of a measured process with the process that launched it. Needs only Python."""

from __future__ import annotations

import json
import os
import time
from typing import Any

RESULT_MARK = "BENCHMARK-RESULT "
STARTED_AT = "BENCHMARK_STARTED_AT"


def started_at() -> float:
    """Time (``time.time()``) of this process's launch, so that imports count."""
    return float(os.environ.get(STARTED_AT, time.time()))


def print_result(result: dict[str, Any]) -> None:
    """Pass ``result`` to the process that launched this one."""
    print(RESULT_MARK + json.dumps(result), flush=True)
