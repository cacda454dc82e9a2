"""Smaller vocabularies: drop the tokens that a text hardly needs, without affecting the others.

Dropping any rare token would break a byte-pair vocabulary, because larger tokens are built from smaller ones.
Here only leaves are dropped, tokens that no merge needs: the rarest first, each with every merge that forms
it. Its occurrences fall back to its two parts, whose counts grow, and which may be the next leaves
(leaf-based pruning, Purason et al. 2025). A text that contains no pruned token keeps its tokens: once formed,
a leaf stays, so if the result contains no pruned token, none was formed on the way.
"""

from __future__ import annotations

import heapq
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from insight.data.tokenizers.base import BaseTokenizer
from insight.data.tokenizers.pretrained import load_tokenizer
from insight.data.tokenizers.quality import NamedText, measure_tokenizer, text_batches
from insight.data.tokenizers.tokenizer_json import merge_pairs
from insight.runtime.errors import ConfigError, TokenizerError


@dataclass(frozen=True)
class PruningPlan:
    """The order in which tokens can be dropped; any number of the first ones may be.

    Attributes:
        order: Ids of the tokens, int64 ``(prunable,)``.
        extra_tokens: Number of additional tokens in the counted text after dropping all tokens up to and
            including this one, int64 ``(prunable,)``. It is exact while it is 0; otherwise it is an estimate
            that is mostly too high, since the parts of a pruned token may merge with their neighbours.
    """

    order: npt.NDArray[np.int64]
    extra_tokens: npt.NDArray[np.int64]

    @property
    def num_free(self) -> int:
        """Number of tokens that can be dropped without any change to the counted text."""
        return int(np.searchsorted(self.extra_tokens, 0, side="right"))


@dataclass(frozen=True)
class PrunedTokenizer:
    """A tokenizer with fewer tokens.

    Attributes:
        old_to_new: int64 ``(old vocabulary_size,)``: the new id of each old one, -1 if it was dropped.
    """

    tokenizer: BaseTokenizer
    old_to_new: npt.NDArray[np.int64]

    @property
    def kept_ids(self) -> npt.NDArray[np.int64]:
        """The old id of each new one, int64 ``(new vocabulary_size,)``."""
        return np.flatnonzero(self.old_to_new >= 0)


def plan_pruning(tokenizer: BaseTokenizer, counts: npt.NDArray[np.int64]) -> PruningPlan:
    """Order the tokens of a byte-pair encoding that can be dropped by how little they are needed.

    Bytes, special tokens and all other tokens that no merge forms always stay. ``counts`` are the occurrences
    of each token in a text, int64 ``(vocabulary_size,)``.

    Raises:
        TokenizerError: The tokenizer is not a byte-pair encoding that can be pruned, or has no merges.
    """
    if len(counts) != tokenizer.vocabulary_size:
        problem = f"{len(counts)} counts for {tokenizer.vocabulary_size} tokens: one is needed for each"
        raise ConfigError(problem, "count with the same tokenizer")
    merges = _merges(_model(json.loads(tokenizer.to_json())))
    if not merges:
        raise TokenizerError("the tokenizer has no merges, so no token can go", "prune a BPE tokenizer")
    special = set(tokenizer.special_tokens.values())
    makers: dict[int, list[tuple[int, int]]] = defaultdict(list)
    num_uses: dict[int, int] = defaultdict(int)
    for left, right, made in merges:
        makers[made].append((left, right))
        num_uses[left] += 1
        num_uses[right] += 1
    remaining = counts.astype(np.int64).tolist()

    # The youngest of equally rare tokens is dropped first, since training found it the least useful.
    leaves = [(remaining[made], -made) for made in makers if not num_uses[made] and made not in special]
    heapq.heapify(leaves)
    order, extra, total = [], [], 0
    while leaves:
        count, negative = heapq.heappop(leaves)
        token = -negative
        order.append(token)
        total += count
        extra.append(total)
        # The library forms a token by the first of its merges that applies.
        for part in makers[token][0]:
            remaining[part] += count
        for pair in makers[token]:
            for part in pair:
                num_uses[part] -= 1
                if not num_uses[part] and part in makers and part not in special:
                    heapq.heappush(leaves, (remaining[part], -part))
    return PruningPlan(np.array(order, dtype=np.int64), np.array(extra, dtype=np.int64))


def prune_tokenizer(tokenizer: BaseTokenizer, removed: npt.NDArray[np.int64]) -> PrunedTokenizer:
    """A tokenizer without the ``removed`` tokens (the first ids of a plan); the others keep their order.

    Raises:
        TokenizerError: The tokenizer cannot be pruned, or a removed token is a byte, special, or part of a
            token that stays.
    """
    data = json.loads(tokenizer.to_json())
    model = _model(data)
    gone = set(removed.tolist())
    vocabulary: dict[str, int] = model["vocab"]
    merges = _merges(model)
    made_by_merges = {made for _, _, made in merges}
    special = set(tokenizer.special_tokens.values())
    for token in gone:
        if token in special or token not in made_by_merges:
            raise TokenizerError(f"token {token} is a byte or special and must stay", "use plan_pruning")
    for left, right, made in merges:
        if made not in gone and (left in gone or right in gone):
            part = left if left in gone else right
            problem = f"token {part} is part of token {made} and must stay with it"
            raise TokenizerError(problem, "use plan_pruning")
    added = {int(token["id"]) for token in data["added_tokens"]}
    kept = sorted((set(vocabulary.values()) | added) - gone)
    old_to_new = np.full(tokenizer.vocabulary_size, -1, dtype=np.int64)
    old_to_new[kept] = np.arange(len(kept))

    stays = ((token, index) for token, index in vocabulary.items() if index not in gone)
    model["vocab"] = {token: int(old_to_new[index]) for token, index in stays}
    pairs = zip(model["merges"], merges, strict=True)
    model["merges"] = [pair for pair, (_, _, made) in pairs if made not in gone]
    for token in data["added_tokens"]:
        token["id"] = int(old_to_new[token["id"]])
    data["post_processor"] = _renumbered(data.get("post_processor"), old_to_new)
    return PrunedTokenizer(load_tokenizer(json.dumps(data, ensure_ascii=False)), old_to_new)


def _model(data: dict[str, Any]) -> dict[str, Any]:
    model: dict[str, Any] = data["model"]
    if (kind := model.get("type")) != "BPE":
        raise TokenizerError(f"the tokenizer is {kind}, not byte-pair encoding", "prune a BPE tokenizer")
    for option in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(option):
            raise TokenizerError(f"the tokenizer uses {option}, with which it cannot be pruned", "leave it")
    return model


def _merges(model: dict[str, Any]) -> list[tuple[int, int, int]]:
    """``(left, right, made)`` as ids, in the order of the file."""
    ids = model["vocab"]
    return [(ids[left], ids[right], ids[left + right]) for left, right in merge_pairs(model)]


def _renumbered(processor: Any, old_to_new: npt.NDArray[np.int64]) -> Any:
    """A post-processor with the new ids of its special tokens (it contains no others)."""
    if isinstance(processor, list):
        return [_renumbered(item, old_to_new) for item in processor]
    if not isinstance(processor, dict):
        return processor
    renumbered = {key: _renumbered(value, old_to_new) for key, value in processor.items()}
    if isinstance(processor.get("ids"), list):  # A template.
        renumbered["ids"] = [int(old_to_new[index]) for index in processor["ids"]]
    for key in ("sep", "cls"):  # For BERT and RoBERTa: a name and its id.
        if isinstance(processor.get(key), list):
            name, index = processor[key]
            renumbered[key] = [name, int(old_to_new[index])]
    return renumbered


# Most encodings of the text in a search by cost; each halves the remaining range.
_NUM_TRIALS = 8
_NUM_CURVE_SIZES = 6
# Sizes that differ by a smaller fraction than this give no new information.
_NEAR = 0.02


@dataclass(frozen=True)
class PruningTrial:
    """The result for one vocabulary size, found by encoding the text.

    Attributes:
        loss: Additional tokens of the text, as a fraction of the number with the whole vocabulary.
    """

    vocabulary_size: int
    num_tokens: int
    num_bytes: int
    loss: float


class PruningSearch:
    """Prunes one tokenizer of byte-pair encoding for texts, which are encoded again for each size.

    Attributes:
        before: The measures of the whole tokenizer.
        plan: The order in which tokens are dropped.
        trials: The results by size.
        smallest_size: The size with only the tokens that must stay.
        largest_free_size: The smallest size at which the ids of the text stay the same.
    """

    def __init__(self, tokenizer: BaseTokenizer, texts: Sequence[NamedText]) -> None:
        self._tokenizer = tokenizer
        self._texts = texts
        self.before = measure_tokenizer(tokenizer, texts)
        self.plan = plan_pruning(tokenizer, self.before.counts)
        self.trials: dict[int, PruningTrial] = {}
        # Ids without a token disappear in any case.
        self._full_size = self._tokenizer_without(0).tokenizer.vocabulary_size
        self.smallest_size = self._full_size - len(self.plan.order)
        self.largest_free_size = self._full_size - self.plan.num_free

    def to_size(self, vocabulary_size: int) -> PrunedTokenizer:
        """The tokenizer with this many tokens.

        Raises:
            ConfigError: The tokenizer has fewer tokens, or more of them must stay.
        """
        if not self.smallest_size <= vocabulary_size <= self._full_size:
            problem = f"the tokenizer has {self._full_size} tokens, of which {self.smallest_size} must stay"
            remedy = f"use {self.smallest_size} to {self._full_size}"
            raise ConfigError(problem, remedy, option="vocabulary_size", value=vocabulary_size)
        pruned = self._tokenizer_without(self._full_size - vocabulary_size)
        self._try(pruned)
        return pruned

    def to_loss(self, max_loss: float) -> PrunedTokenizer:
        """The smallest tokenizer found by encoding that lengthens the text by at most ``max_loss``.

        ``max_loss`` is a fraction of the tokens before, e.g. 0.01 for one per cent more; 0 drops only tokens
        that never occur, and a negative one raises a ConfigError.
        """
        if not max_loss >= 0:
            raise ConfigError("must not be negative", "use e.g. 0.01", option="max_loss", value=max_loss)
        allowed = self.before.total.num_tokens * max_loss
        good, bad = self.plan.num_free, len(self.plan.order) + 1
        # The estimate is close, so it is tried first; then the range around it is halved.
        trial = int(np.searchsorted(self.plan.extra_tokens, allowed, side="right"))
        for _ in range(_NUM_TRIALS):
            if bad - good <= 1 or max_loss == 0:
                break
            trial = trial if good < trial < bad else (good + bad) // 2
            if self._try(self._tokenizer_without(trial)).loss <= max_loss:
                good, trial = trial, min(trial + max(1, trial // 8), (trial + bad) // 2)
            else:
                bad, trial = trial, (good + trial) // 2
        return self.to_size(self._full_size - good)

    def try_curve(self) -> None:
        """Try some sizes between the smallest and the full one, in a geometric sequence."""
        sizes = np.geomspace(self.smallest_size, self._full_size, _NUM_CURVE_SIZES).round().astype(int)
        for size in sizes.tolist():
            if not any(abs(tried / size - 1) < _NEAR for tried in self.trials) or size == self._full_size:
                self._try(self._tokenizer_without(self._full_size - size))

    def _tokenizer_without(self, num_removed: int) -> PrunedTokenizer:
        return prune_tokenizer(self._tokenizer, self.plan.order[:num_removed])

    def _try(self, pruned: PrunedTokenizer) -> PruningTrial:
        size = pruned.tokenizer.vocabulary_size
        if size not in self.trials:
            total, num_tokens = self.before.total, 0
            for _, read in self._texts:
                for batch, _ in text_batches(pruned.tokenizer, read()):
                    num_tokens += len(pruned.tokenizer.encode_batch(batch).ids)
            loss = num_tokens / total.num_tokens - 1
            self.trials[size] = PruningTrial(size, num_tokens, total.num_bytes, loss)
        return self.trials[size]
