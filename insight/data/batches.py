"""What a loader hands to a module: batches as dataclasses of tensors."""

from __future__ import annotations

from dataclasses import dataclass

import torch

IGNORED_TARGET = -100
"""Target value of a position that takes no part in the loss (the default of torch's cross-entropy)."""


@dataclass
class LanguageModelBatch:
    """A batch of token windows.

    Attributes:
        input_ids: int64 ``(batch, sequence)``.
        targets: int64 ``(batch, sequence)``; ``IGNORED_TARGET`` where no prediction counts.
        document_ids: int64 ``(batch, sequence)`` or ``None``; attention stays inside equal ids.
        position_ids: int64 ``(batch, sequence)`` or ``None`` for 0, 1, 2, …
        num_samples: By how many samples the data's position moves on; ``None`` for one a row.
    """

    input_ids: torch.Tensor
    targets: torch.Tensor
    document_ids: torch.Tensor | None = None
    position_ids: torch.Tensor | None = None
    num_samples: int | None = None
