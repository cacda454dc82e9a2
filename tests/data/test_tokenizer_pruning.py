"""Pruning takes tokens away and nothing else: text that held none of them gets the same tokens as before."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, processors

from insight.data import BPETokenizerConfig, ByteTokenizer, WordTokenizerConfig, load_tokenizer, read_corpus
from insight.data.tokenizers.pruning import PrunedTokenizer, PruningSearch, plan_pruning, prune_tokenizer
from insight.runtime.errors import ConfigError, TokenizerError

TEXT = read_corpus("austen-emma")[:120_000]
BPE = BPETokenizerConfig(1200, special_tokens=("<|user|>",)).build([TEXT])
IDS = BPE.encode(TEXT[:16_000])
COUNTS = np.bincount(IDS, minlength=BPE.vocabulary_size)
PLAN = plan_pruning(BPE, COUNTS)
NUM_KEPT = 256 + 2
words = st.sampled_from([*TEXT[:3000].split(" "), "é日", "\n\n", "xqz", "123", "<|user|>"])
texts = st.one_of(
    st.lists(words, max_size=20).map(" ".join), st.text(st.characters(exclude_categories=["Cs"]))
)


def invariant_holds(pruned: PrunedTokenizer, removed: set[int], text: str) -> bool:
    """Same ids through the table where nothing pruned was used; no text lost anywhere."""
    before, after = BPE.encode(text), pruned.tokenizer.encode(text)
    if pruned.tokenizer.decode(after) != text:
        return False
    return bool(removed & set(before)) or after == pruned.old_to_new[before].tolist()


@pytest.mark.slow
@settings(deadline=None, max_examples=150)
@given(texts, st.integers(0, len(PLAN.order)))
def test_text_without_pruned_tokens_keeps_its_tokens(text: str, num_removed: int) -> None:
    pruned = prune_cached(num_removed)
    assert invariant_holds(pruned, set(PLAN.order[:num_removed].tolist()), text)


_PRUNED: dict[int, PrunedTokenizer] = {}


def prune_cached(num_removed: int) -> PrunedTokenizer:
    if num_removed not in _PRUNED:
        _PRUNED[num_removed] = prune_tokenizer(BPE, PLAN.order[:num_removed])
    return _PRUNED[num_removed]


def test_planted_fault_is_seen() -> None:
    """Dropping rare tokens without looking at what is made of them breaks other text."""
    data = json.loads(BPE.to_json())
    vocabulary = data["model"]["vocab"]
    uses = {part for pair in data["model"]["merges"] for part in pair}
    made = [left + right for left, right in data["model"]["merges"]]
    inner = next(name for name in made if name in uses and not COUNTS[vocabulary[name]])
    gone = {vocabulary[inner]}
    data["model"]["merges"] = [
        pair for pair in data["model"]["merges"] if inner not in (*pair, "".join(pair))
    ]
    del vocabulary[inner]
    kept = sorted(set(vocabulary.values()))
    table = np.full(BPE.vocabulary_size, -1)
    table[kept] = np.arange(len(kept))
    data["model"]["vocab"] = {name: int(table[index]) for name, index in vocabulary.items()}
    for token in data["added_tokens"]:
        token["id"] = int(table[token["id"]])
    broken = PrunedTokenizer(load_tokenizer(json.dumps(data)), table)
    assert not all(invariant_holds(broken, gone, f" {word}") for word in set(TEXT.split(" ")))


def test_what_never_occurs_costs_nothing() -> None:
    assert PLAN.num_free > 0
    pruned = prune_cached(PLAN.num_free)
    assert pruned.tokenizer.encode(TEXT[:16_000]) == pruned.old_to_new[IDS].tolist()
    assert pruned.tokenizer.vocabulary_size == BPE.vocabulary_size - PLAN.num_free


def test_the_estimate_is_close_and_mostly_too_high() -> None:
    for num_removed in (PLAN.num_free, len(PLAN.order) // 2, len(PLAN.order)):
        now = len(prune_cached(num_removed).tokenizer.encode(TEXT[:16_000]))
        estimate = len(IDS) + (int(PLAN.extra_tokens[num_removed - 1]) if num_removed else 0)
        assert 0.9 * estimate <= now <= 1.01 * estimate
    # With nothing but bytes left every byte is a token, as counted.
    assert now == len(TEXT[:16_000].encode()) == estimate


def test_bytes_and_special_tokens_stay() -> None:
    smallest = prune_cached(len(PLAN.order)).tokenizer
    assert smallest.vocabulary_size == NUM_KEPT == BPE.vocabulary_size - len(PLAN.order)
    assert smallest.special_tokens == {"<|endoftext|>": 0, "<|user|>": 1}
    assert type(smallest) is type(BPE)
    kept = prune_cached(len(PLAN.order)).kept_ids
    assert [smallest.token_bytes(new) for new in range(NUM_KEPT)] == [
        BPE.token_bytes(old) for old in kept.tolist()
    ]


def test_the_order_is_that_of_looking_for_the_rarest_leaf_each_time() -> None:
    """The plan's heap against a search through everything."""
    data = json.loads(BPE.to_json())
    ids = data["model"]["vocab"]
    merges = [(ids[left], ids[right], ids[left + right]) for left, right in data["model"]["merges"]]
    counts, order, extra, total = COUNTS.tolist(), [], [], 0
    while merges:
        parts = {part for left, right, _ in merges for part in (left, right)}
        leaf = min({made for *_, made in merges} - parts, key=lambda token: (counts[token], -token))
        left, right, _ = next(merge for merge in merges if merge[2] == leaf)
        counts[left] += counts[leaf]
        counts[right] += counts[leaf]
        total += counts[leaf]
        merges = [merge for merge in merges if merge[2] != leaf]
        order.append(leaf)
        extra.append(total)
    assert PLAN.order.tolist() == order
    assert PLAN.extra_tokens.tolist() == extra


def test_the_file_is_a_standard_one() -> None:
    """The library alone gives the same ids, and templates name special tokens by their new ids."""
    other = Tokenizer.from_str(BPE.to_json())
    other.post_processor = processors.TemplateProcessing(
        single="$A <|user|>", special_tokens=[("<|user|>", BPE.special_tokens["<|user|>"])]
    )
    data = json.loads(other.to_str())
    for token in data["added_tokens"]:  # special tokens behind the others, as other libraries write them
        token["id"] += BPE.vocabulary_size - 2
    data["model"]["vocab"] = {
        name: index - 2 if index > 1 else index + BPE.vocabulary_size - 2
        for name, index in data["model"]["vocab"].items()
    }
    template: dict[str, Any] = data["post_processor"]["special_tokens"]["<|user|>"]
    template["ids"] = [BPE.vocabulary_size - 1]
    moved = load_tokenizer(json.dumps(data))
    counts = np.bincount(moved.encode(TEXT[:16_000]), minlength=moved.vocabulary_size)
    pruned = prune_tokenizer(moved, plan_pruning(moved, counts).order[:400])
    library = Tokenizer.from_str(pruned.tokenizer.to_json())
    text = TEXT[:2000]
    plain = library.encode(text, add_special_tokens=False).ids
    assert plain == pruned.tokenizer.encode(text)
    assert library.encode(text).ids == [*plain, pruned.tokenizer.special_tokens["<|user|>"]]
    assert pruned.tokenizer.special_tokens["<|user|>"] == pruned.tokenizer.vocabulary_size - 1


def test_what_cannot_be_pruned() -> None:
    with pytest.raises(TokenizerError, match="has no merges"):
        plan_pruning(ByteTokenizer(), np.zeros(257, dtype=np.int64))
    words = WordTokenizerConfig(50).build([TEXT])
    with pytest.raises(TokenizerError, match="is WordLevel, not byte-pair encoding"):
        plan_pruning(words, np.zeros(words.vocabulary_size, dtype=np.int64))
    with pytest.raises(ConfigError, match="3 counts for 1200 tokens"):
        plan_pruning(BPE, np.zeros(3, dtype=np.int64))
    with pytest.raises(TokenizerError, match="is a byte or special"):
        prune_tokenizer(BPE, np.array([0]))
    with pytest.raises(TokenizerError, match="is part of token"):
        prune_tokenizer(BPE, PLAN.order[-1:])


def test_choosing_by_size_and_by_loss() -> None:
    search = PruningSearch(BPE, [("text", lambda: [TEXT[:16_000]])])
    assert search.smallest_size == NUM_KEPT
    assert search.to_size(600).tokenizer.vocabulary_size == 600
    free = search.to_loss(0)
    assert free.tokenizer.vocabulary_size == search.largest_free_size
    assert search.trials[search.largest_free_size].loss == 0
    sizes = []
    for max_loss in (0.01, 0.05, 0.5):
        pruned = search.to_loss(max_loss)
        size = pruned.tokenizer.vocabulary_size
        num_tokens = len(pruned.tokenizer.encode(TEXT[:16_000]))
        assert num_tokens / len(IDS) - 1 == pytest.approx(search.trials[size].loss)
        assert 0.5 * max_loss < search.trials[size].loss <= max_loss
        sizes.append(size)
    assert sizes == sorted(sizes, reverse=True)
    search.try_curve()
    assert {NUM_KEPT, BPE.vocabulary_size} <= set(search.trials)
    assert search.trials[BPE.vocabulary_size].loss == 0
    for size in (NUM_KEPT - 1, 1201):
        with pytest.raises(ConfigError) as caught:
            search.to_size(size)
        assert (caught.value.option, caught.value.remedy) == ("vocabulary_size", f"use {NUM_KEPT} to 1200")
    with pytest.raises(ConfigError) as caught:
        search.to_loss(-0.1)
    assert (caught.value.option, caught.value.value) == ("max_loss", -0.1)
