"""The tree of tokens that the beams of a sentence have written, and the mask that follows from it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from insight.models.masks import Mask

# Slots are looked through for those that no beam sees any more after this many steps, and packed where at
# least this share of them has died.
_STEPS_BETWEEN = 8
_DEAD_SHARE = 0.25


class BeamTree:
    """Which of the stored tokens of its sentence each beam has written.

    The beams of a sentence share their stored keys and values: each new token gets a slot, and a beam sees
    the slots of its own history. A beam that continues another inherits what that one sees, so choosing beams
    moves no key. Slots that no beam sees are packed away from time to time.

    Args:
        num_sentences: Sentences of the batch; each has one beam at first.
        device: Device of the tables.
    """

    def __init__(self, num_sentences: int, device: torch.device) -> None:
        self.num_sentences, self.num_beams = num_sentences, 1
        self.num_tokens = 0
        """Tokens of each beam."""
        self.start = self.stop = 0
        """The slots of the newest tokens; all before ``stop`` are used."""
        self._positions = torch.zeros(1, 0, dtype=torch.int64, device=device)
        self._visible: Tensor | None = None  # every beam sees every slot
        self._own: Tensor | None = None  # the newest slot of each beam is its own
        self._steps = 0

    def grow(self, num_tokens: int) -> None:
        """Give each beam slots for its next tokens: for one, or for any number before there are beams."""
        num_new = num_tokens * self.num_beams
        self.start, self.stop = self.stop, self.stop + num_new
        device, rows = self._positions.device, self._positions.shape[0]
        if num_tokens == 1:
            new = self._positions.new_full((rows, num_new), self.num_tokens)
        else:
            positions = torch.arange(self.num_tokens, self.num_tokens + num_tokens, device=device)
            new = positions.repeat_interleave(self.num_beams).expand(rows, -1)
        self._positions = torch.cat([self._positions, new], dim=1)
        self.num_tokens += num_tokens
        if self._visible is not None:
            if self._own is None or self._own.shape[1] != self.num_beams:
                self._own = torch.eye(self.num_beams, dtype=torch.bool, device=device).unsqueeze(0)
            own = self._own.expand(self.num_sentences, -1, -1)
            self._visible = torch.cat([self._visible, own], dim=2)

    def choose(self, beams: Tensor, sentences: Tensor | None) -> Tensor | None:
        """Let new beams continue former ones; arguments as in :meth:`BeamCache.choose_beams`.

        Returns:
            The slots ``(sentences, slots)`` that are left, in order, if the others have been packed away.
        """
        if sentences is not None and self._positions.shape[0] > 1:
            self._positions = self._positions[sentences]
        visible = self._visible
        self.num_sentences, num_beams = beams.shape
        if visible is None and (num_beams, self.num_beams) != (1, 1):
            visible = torch.ones(1, 1, 1, dtype=torch.bool, device=beams.device)
            visible = visible.expand(self.num_sentences, num_beams, self.stop)
        elif visible is not None:
            visible = visible if sentences is None else visible[sentences]
            visible = visible.gather(1, beams.unsqueeze(2).expand(-1, -1, self.stop))
        self._visible, self.num_beams = visible, num_beams
        self._steps += 1
        return self._pack() if self._steps % _STEPS_BETWEEN == 0 else None

    def mask(self, mask: Mask) -> Mask:
        """Return the mask over the slots, ``mask`` itself while each sentence has had one beam only."""
        if self._visible is None:
            return mask
        return BeamMask(self._visible, self._positions, self.num_tokens - 1)

    def _pack(self) -> Tensor | None:
        if self._visible is None:
            return None
        alive = self._visible.any(1)
        count = int(alive.sum(1).max())
        if count > (1 - _DEAD_SHARE) * self.stop:
            return None
        kept = alive.byte().argsort(dim=1, descending=True, stable=True)[:, :count]
        self._visible = self._visible.gather(2, kept.unsqueeze(1).expand(-1, self.num_beams, -1))
        self._positions = self._positions.expand(self.num_sentences, -1).gather(1, kept)
        self.stop = count
        return kept


@dataclass(frozen=True)
class BeamMask(Mask):
    """Each query is that of a beam and sees the slots of the beam's own tokens.

    Args:
        tokens: bool ``(sentences, beams, slots)``.
        positions: Position of each slot's token, int64 ``(sentences or 1, slots)``.
        newest: Position of the queries.
    """

    tokens: Tensor
    positions: Tensor
    newest: int

    def visible(self, row: Tensor, query: Tensor, key: Tensor, offset: int) -> Tensor:
        return self.tokens[row, query, key]

    @property
    def num_rows(self) -> int:
        return self.tokens.shape[0]

    def allowed(self, num_queries: int, num_keys: int, device: torch.device) -> Tensor:
        return self.tokens.unsqueeze(1)

    def distances(self, num_queries: int, num_keys: int, device: torch.device) -> Tensor:
        return (self.newest - self.positions).unsqueeze(1)
