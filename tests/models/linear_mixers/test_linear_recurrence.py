"""The recurrence of linear mixers: chunks and single tokens against the plain formula, in float64."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest
import torch

from insight.models.attention.linear import Recurrence, mix_chunks, mix_token
from insight.models.attention.linear import recurrence as formulas
from insight.models.attention.linear.base import without_padding

BATCH, HEADS, KEY, VALUE = 2, 3, 4, 5
KINDS = {
    "one decay a head": (1, False),
    "one decay a channel": (KEY, False),
    "delta rule": (1, True),
    "delta rule, one decay a channel": (KEY, True),
}


def recurrence(kind: str, length: int, strongest: float = 1.0) -> Recurrence:
    num_decays, has_strength = KINDS[kind]
    generator = torch.Generator().manual_seed(length)

    def draw(channels: int) -> torch.Tensor:
        return torch.randn(BATCH, HEADS, length, channels, generator=generator, dtype=torch.float64)

    key = torch.nn.functional.normalize(draw(KEY), dim=-1)
    log_decay = -strongest * draw(num_decays).abs()
    return Recurrence(draw(KEY), key, draw(VALUE), log_decay, draw(1).sigmoid() if has_strength else None)


def by_the_formula(inputs: Recurrence, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """S = diag(decay) S; u = value, or strength (value - S^T key); S = S + key u^T; output = S^T query."""
    rows = []
    for b in range(state.shape[0]):
        heads = []
        for h in range(state.shape[1]):
            memory, outputs = state[b, h], []
            for t in range(inputs.num_tokens):
                memory = torch.diag(inputs.log_decay[b, h, t].exp().expand(state.shape[2])) @ memory
                written = inputs.value[b, h, t]
                if inputs.strength is not None:
                    written = inputs.strength[b, h, t] * (written - memory.T @ inputs.key[b, h, t])
                memory = memory + torch.outer(inputs.key[b, h, t], written)
                outputs.append(memory.T @ inputs.query[b, h, t])
            heads.append((torch.stack(outputs), memory))
        rows.append([torch.stack(parts) for parts in zip(*heads, strict=True)])
    return tuple(torch.stack(parts) for parts in zip(*rows, strict=True))  # type: ignore[return-value]


def first_state() -> torch.Tensor:
    generator = torch.Generator().manual_seed(9)
    return torch.randn(BATCH, HEADS, KEY, VALUE, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("length", [1, 16, 50, 64, 150])
def test_chunks_and_tokens_follow_the_formula(kind: str, length: int) -> None:
    inputs, state = recurrence(kind, length), first_state()
    expected = by_the_formula(inputs, state)
    torch.testing.assert_close(mix_chunks(inputs, state), expected, rtol=1e-10, atol=1e-11)
    outputs = []
    for index in range(length):
        output, state = mix_token(inputs.tokens(index, index + 1), state)
        outputs.append(output)
    torch.testing.assert_close((torch.cat(outputs, dim=2), state), expected, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("kind", KINDS)
def test_a_state_may_be_handed_on_anywhere(kind: str) -> None:
    inputs = recurrence(kind, 150)
    whole, last = mix_chunks(inputs)
    for split in (1, 63, 64, 65, 149):
        first, state = mix_chunks(inputs.tokens(0, split))
        second, state = mix_chunks(inputs.tokens(split, 150), state)
        torch.testing.assert_close(torch.cat([first, second], dim=2), whole, rtol=1e-10, atol=1e-11)
        torch.testing.assert_close(state, last, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_follow_the_formula(kind: str) -> None:
    results = []
    for form in (mix_chunks, by_the_formula):
        inputs = recurrence(kind, 70).map(lambda tensor: tensor.detach().requires_grad_())
        state = first_state().requires_grad_()
        output, last = form(inputs, state)
        (output.square().sum() + last.square().sum()).backward()
        tensors = [inputs.query, inputs.key, inputs.value, inputs.log_decay, inputs.strength, state]
        results.append([tensor.grad for tensor in tensors if tensor is not None])
    torch.testing.assert_close(results[0], results[1], rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_gradcheck(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formulas, "CHUNK", 3)
    monkeypatch.setattr(formulas, "CHANNEL_CHUNK", 3)
    inputs = recurrence(kind, 7).map(lambda tensor: tensor[:1, :1, :, :3].detach().requires_grad_())
    tensors = [inputs.query, inputs.key, inputs.value, inputs.log_decay]
    tensors += [] if inputs.strength is None else [inputs.strength]
    state = first_state()[:1, :1, :3, :3].detach().requires_grad_()

    def mix(state: torch.Tensor, *tensors: torch.Tensor) -> Any:
        return mix_chunks(Recurrence(*tensors), state)

    assert torch.autograd.gradcheck(mix, (state, *tensors))


@pytest.mark.parametrize("kind", KINDS)
def test_documents_are_as_if_alone(kind: str) -> None:
    inputs = recurrence(kind, 150)
    # Borders inside a chunk, at one, and a document longer than several.
    ends = [(0, 5, 64, 70, 150), (0, 1, 2, 149, 150)]
    ids = torch.zeros(BATCH, 150, dtype=torch.int64)
    for row, places in enumerate(ends):
        for number, start in enumerate(places[:-1]):
            ids[row, start:] = number
    together, _ = mix_chunks(inputs, document_ids=ids)
    for row, places in enumerate(ends):
        alone = inputs.map(lambda tensor, row=row: tensor[row : row + 1])  # type: ignore[misc]
        parts = [mix_chunks(alone.tokens(a, b))[0] for a, b in itertools.pairwise(places)]
        torch.testing.assert_close(together[row : row + 1], torch.cat(parts, dim=2), rtol=1e-10, atol=1e-11)
    forgotten, _ = mix_chunks(inputs)
    assert (together - forgotten).abs().max() > 0.01  # without the ids documents do mix


@pytest.mark.parametrize("kind", KINDS)
def test_the_strongest_decay_stays_finite(kind: str) -> None:
    inputs = recurrence(kind, 100, strongest=100.0).map(lambda tensor: tensor.float().requires_grad_())
    output, state = mix_chunks(inputs, first_state().float())
    (output.sum() + state.sum()).backward()
    for tensor in (inputs.query, inputs.key, inputs.value, inputs.log_decay):
        assert tensor.grad is not None
        assert tensor.grad.isfinite().all()
    expected, _ = by_the_formula(inputs.map(torch.Tensor.double), first_state())
    torch.testing.assert_close(output.double(), expected, rtol=5e-3, atol=5e-3)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("huge", [50.0, 1e4, 1e30, float("inf")])
def test_after_a_huge_decay_the_small_ones_still_count(kind: str, huge: float) -> None:
    inputs = recurrence(kind, 100, strongest=0.05)
    log_decay = inputs.log_decay.float()
    log_decay[:, :, 3] = log_decay[:, :, 66] = -huge
    inputs = replace(inputs.map(torch.Tensor.float), log_decay=log_decay)
    leaves = inputs.map(lambda tensor: tensor.clone().requires_grad_())
    output, state = mix_chunks(leaves, first_state().float())
    expected, last = by_the_formula(inputs, first_state().float())
    torch.testing.assert_close(output, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(state, last, rtol=1e-5, atol=1e-5)
    (output.sum() + state.sum()).backward()
    assert leaves.log_decay.grad is not None
    assert leaves.log_decay.grad.isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("length", [1, 70])
def test_padding_passes_the_state_bit_for_bit(kind: str, length: int) -> None:
    inputs = recurrence(kind, length).map(torch.Tensor.float)
    state = first_state().float()
    mix = mix_token if length == 1 else mix_chunks
    silent = without_padding(inputs, torch.ones(BATCH, length, dtype=torch.bool))
    assert torch.equal(mix(silent, state)[1], state)
    assert not torch.equal(mix(inputs, state)[1], state)  # tokens that are no padding do change it


def test_autocast_does_not_round_the_state() -> None:
    inputs, state = recurrence("delta rule", 70).map(torch.Tensor.float), first_state().float()
    expected = mix_chunks(inputs, state)
    with torch.autocast("cpu", torch.bfloat16):
        for result, exact in zip(mix_chunks(inputs, state), expected, strict=True):
            assert torch.equal(result, exact)
        token = inputs.tokens(0, 1)
        assert mix_token(token, state)[0].dtype == torch.float32
