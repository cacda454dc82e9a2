"""What a checkpoint holds beside weights, optimizer and loops, so that it can be understood and continued."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from insight.runtime.seeding import capture_random_states
from insight.training.accumulation import AccumulationWindow

if TYPE_CHECKING:
    from insight.training.language_modeling import LanguageModelingModule

FORMAT_VERSION = 1
"""Of ``checkpoint["insight"]``."""


def checkpoint_content(
    module: LanguageModelingModule, data: Any, window: AccumulationWindow | None
) -> dict[str, Any]:
    """What goes under ``checkpoint["insight"]``: primitives and tensors only.

    Every process must ask at the same time.

    Args:
        module: In training.
        data: Its data module.
        window: Micro-batches whose optimizer step is still to come; ``None`` right after a step.
    """
    content = {
        "format_version": FORMAT_VERSION,
        "network": module.network_config.to_dict(),
        "tokenizer": data.tokenizer.to_json(),
        "vocabulary_size": module.network.vocabulary_size,
        "sequence_length": data.sequence_length,
        "global_batch_size": getattr(data, "global_batch_size", None),
        "num_planned_steps": module.num_planned_steps,
        "random_states": capture_random_states(),
        "guard": module.guard.state_dict(),
    }
    canaries = getattr(data, "canaries", None)
    if canaries is not None:  # without it nobody could measure later whether they were remembered
        content["canaries"] = canaries.record()
    if window is not None:
        content["open_window"] = window.state_dict(module.network, module.trainer)
    return content
