"""What can be tested: anything that writes text or tells how likely a text is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from insight.runtime.imports import lazy_exports

if TYPE_CHECKING:
    from insight.safety.targets.base import Blocked as Blocked
    from insight.safety.targets.base import Target as Target
    from insight.safety.targets.base import Unanswered as Unanswered
    from insight.safety.targets.from_callable import CallableTarget as CallableTarget
    from insight.safety.targets.network import NetworkTarget as NetworkTarget

_EXPORTS = {
    "Blocked": "base",
    "CallableTarget": "from_callable",
    "NetworkTarget": "network",
    "Target": "base",
    "Unanswered": "base",
}
__all__ = sorted(_EXPORTS)
__getattr__ = lazy_exports(__name__, _EXPORTS)
