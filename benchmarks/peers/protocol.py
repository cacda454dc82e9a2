"""How a measured process and the one that launched it understand each other. Needs nothing but Python."""

from __future__ import annotations

import json
import os
import time
from typing import Any

RESULT_MARK = "BENCHMARK-RESULT "
STARTED_AT = "BENCHMARK_STARTED_AT"


def started_at() -> float:
    """Wall-clock time (``time.time()``) at which this process was launched, so that imports count."""
    return float(os.environ.get(STARTED_AT, time.time()))


def print_result(result: dict[str, Any]) -> None:
    """Hand ``result`` to the process that launched this one."""
    print(RESULT_MARK + json.dumps(result), flush=True)
