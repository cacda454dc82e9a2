"""Fewer tokens for the same text: drop those that a corpus hardly needs, without disturbing the others.

Dropping rare tokens from a byte-pair vocabulary as such breaks it: larger tokens are made of smaller ones.
Here only leaves go, tokens that no merge needs, the rarest first, each with every merge that makes it; its
occurrences fall back to its two parts, whose counts grow, and which may be the next leaves (leaf-based
pruning, Purason et al. 2025). A text that held no pruned token is cut into the same tokens as before: a leaf,
once made, stays, so where none of the pruned ones stands in the result none was made on the way.
"""

from __future__ import annotations

import heapq
import json
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from insight.data.tokenizers.base import BaseTokenizer
from insight.data.tokenizers.loading import load_tokenizer
from insight.runtime.errors import ConfigError, TokenizerError


@dataclass(frozen=True)
class PruningPlan:
    """In which order tokens can go; every beginning of it may be pruned.

    Attributes:
        order: int64 ``(prunable,)``, ids.
        extra_tokens: int64 ``(prunable,)``, how many tokens more the counted text has when all up to and
            with this one are gone. Exact while it is 0; otherwise an estimate that is mostly too high, since
            the parts of a pruned token may join with what stands beside them.
    """

    order: npt.NDArray[np.int64]
    extra_tokens: npt.NDArray[np.int64]

    @property
    def num_free(self) -> int:
        """How many tokens can go without any change to the counted text."""
        return int(np.searchsorted(self.extra_tokens, 0, side="right"))


@dataclass(frozen=True)
class PrunedTokenizer:
    """A tokenizer with fewer tokens.

    Attributes:
        tokenizer: The new one.
        old_to_new: int64 ``(old vocabulary_size,)``: the new id of each old one, -1 where it is gone.
    """

    tokenizer: BaseTokenizer
    old_to_new: npt.NDArray[np.int64]

    @property
    def kept_ids(self) -> npt.NDArray[np.int64]:
        """The old id of each new one, int64 ``(new vocabulary_size,)``."""
        return np.flatnonzero(self.old_to_new >= 0)


def plan_pruning(tokenizer: BaseTokenizer, counts: npt.NDArray[np.int64]) -> PruningPlan:
    """Order the tokens that can go by how little they are needed.

    Bytes, special tokens and whatever else no merge makes always stay.

    Args:
        tokenizer: Byte-pair encoding.
        counts: How often each token occurs in the text that counts, int64 ``(vocabulary_size,)``.

    Raises:
        TokenizerError: It is no byte-pair encoding of a kind that can be pruned, or has nothing to prune.
        ConfigError: There is not one count for each token.
    """
    if len(counts) != tokenizer.vocabulary_size:
        raise ConfigError(
            f"{len(counts)} counts for {tokenizer.vocabulary_size} tokens: one is needed for each",
            "count with the same tokenizer",
        )
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

    # Of equally rare tokens the youngest goes first: it was the least worth learning.
    leaves = [(remaining[made], -made) for made in makers if not num_uses[made] and made not in special]
    heapq.heapify(leaves)
    order, extra, total = [], [], 0
    while leaves:
        count, negative = heapq.heappop(leaves)
        token = -negative
        order.append(token)
        total += count
        extra.append(total)
        # The library makes a token by the first of its merges that applies.
        for part in makers[token][0]:
            remaining[part] += count
        for pair in makers[token]:
            for part in pair:
                num_uses[part] -= 1
                if not num_uses[part] and part in makers and part not in special:
                    heapq.heappush(leaves, (remaining[part], -part))
    return PruningPlan(np.array(order, dtype=np.int64), np.array(extra, dtype=np.int64))


def prune_tokenizer(tokenizer: BaseTokenizer, removed: npt.NDArray[np.int64]) -> PrunedTokenizer:
    """A tokenizer without some tokens, the others in their old order.

    Args:
        tokenizer: Byte-pair encoding.
        removed: A beginning of ``plan_pruning(...).order``.

    Raises:
        TokenizerError: It cannot be pruned, or a token that is to go is a byte, special, or part of one that
            stays.
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
            raise TokenizerError(
                f"token {part} is part of token {made} and must stay with it", "use plan_pruning"
            )
    added = {int(token["id"]) for token in data["added_tokens"]}
    kept = sorted((set(vocabulary.values()) | added) - gone)
    old_to_new = np.full(tokenizer.vocabulary_size, -1, dtype=np.int64)
    old_to_new[kept] = np.arange(len(kept))

    model["vocab"] = {
        token: int(old_to_new[index]) for token, index in vocabulary.items() if index not in gone
    }
    model["merges"] = [
        pair for pair, (_, _, made) in zip(model["merges"], merges, strict=True) if made not in gone
    ]
    for token in data["added_tokens"]:
        token["id"] = int(old_to_new[token["id"]])
    data["post_processor"] = _renumbered(data.get("post_processor"), old_to_new)
    return PrunedTokenizer(load_tokenizer(json.dumps(data, ensure_ascii=False)), old_to_new)


def _model(data: dict[str, Any]) -> dict[str, Any]:
    model: dict[str, Any] = data["model"]
    kind = model.get("type")
    if kind != "BPE":
        raise TokenizerError(f"the tokenizer is {kind}, not byte-pair encoding", "prune a BPE tokenizer")
    for option in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(option):
            raise TokenizerError(f"the tokenizer uses {option}, with which it cannot be pruned", "leave it")
    return model


def _merges(model: dict[str, Any]) -> list[tuple[int, int, int]]:
    """``(left, right, made)`` as ids, in the order of the file."""
    vocabulary = model["vocab"]
    pairs = [pair.split(" ", 1) if isinstance(pair, str) else pair for pair in model["merges"]]
    return [(vocabulary[left], vocabulary[right], vocabulary[left + right]) for left, right in pairs]


def _renumbered(processor: Any, old_to_new: npt.NDArray[np.int64]) -> Any:
    """A post-processor with the new ids of its special tokens (it never holds others)."""
    if isinstance(processor, list):
        return [_renumbered(item, old_to_new) for item in processor]
    if not isinstance(processor, dict):
        return processor
    renumbered = {key: _renumbered(value, old_to_new) for key, value in processor.items()}
    if isinstance(processor.get("ids"), list):  # of a template
        renumbered["ids"] = [int(old_to_new[index]) for index in processor["ids"]]
    for key in ("sep", "cls"):  # of BERT and RoBERTa: a name and its id
        if isinstance(processor.get(key), list):
            name, index = processor[key]
            renumbered[key] = [name, int(old_to_new[index])]
    return renumbered
