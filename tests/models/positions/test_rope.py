"""Rotary positions against transformers' tables and the formula with complex numbers."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from insight.models import NoPosition, Rope
from insight.models.positions.rope import rotate
from insight.runtime.errors import ConfigError


def heads(batch: int = 2, length: int = 7, num_heads: int = 3, head_dim: int = 8) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(
        batch, length, num_heads, head_dim, generator=generator, dtype=torch.float64
    ).requires_grad_()


@pytest.mark.parametrize("base", [10000.0, 500000.0])
def test_tables_equal_transformers_bit_for_bit(base: float) -> None:
    transformers = pytest.importorskip("transformers")
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    config = transformers.LlamaConfig(
        hidden_size=64,
        num_attention_heads=2,
        rope_parameters={"rope_type": "default", "rope_theta": base},
    )
    positions = torch.arange(300)
    theirs = LlamaRotaryEmbedding(config)(torch.empty(1, 1, 1), positions[None])
    for ours, expected in zip(Rope(base).build(32).tables(positions), theirs, strict=True):
        assert torch.equal(ours[:, 0], expected[0, :, :16])


def test_rotation_is_a_product_of_complex_numbers() -> None:
    encoding = Rope(100.0).build(8).double()
    positions = torch.arange(7)
    x = heads()
    frequencies = 100.0 ** (-torch.arange(4, dtype=torch.float64) / 4)
    turn = torch.polar(torch.ones(7, 4, dtype=torch.float64), positions[:, None] * frequencies)
    pairs = torch.complex(*x.chunk(2, dim=-1)) * turn[None, :, None]
    torch.testing.assert_close(
        encoding.apply_to_heads(x, encoding.tables(positions)), torch.cat([pairs.real, pairs.imag], dim=-1)
    )


def test_gradient_by_finite_differences() -> None:
    encoding = Rope().build(8).double()
    tables = encoding.tables(torch.arange(7))
    assert torch.autograd.gradcheck(lambda x: encoding.apply_to_heads(x, tables), (heads(),))


def test_rotation_back_undoes_it_and_keeps_lengths() -> None:
    cosine, sine = Rope().build(8).double().tables(torch.arange(7))
    x = heads().detach()
    turned = rotate(x, cosine, sine)
    torch.testing.assert_close(rotate(turned, cosine, -sine), x)
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1))


def test_scores_depend_on_distances_only() -> None:
    encoding: Any = Rope().build(8).double()
    query, key = heads().detach(), heads().detach().flip(1)

    def scores(shift: int) -> torch.Tensor:
        tables = encoding.tables(torch.arange(7) + shift)
        q, k = (encoding.apply_to_heads(x, tables) for x in (query, key))
        return torch.einsum("bqhd,bkhd->bhqk", q, k)

    torch.testing.assert_close(scores(0), scores(1000))


def test_positions_may_differ_between_rows() -> None:
    encoding = Rope().build(8).double()
    x = heads().detach()
    positions = torch.stack([torch.arange(7), torch.arange(7) * 2])
    together = encoding.apply_to_heads(x, encoding.tables(positions))
    for row in range(2):
        alone = encoding.apply_to_heads(x[row : row + 1], encoding.tables(positions[row]))
        torch.testing.assert_close(together[row : row + 1], alone)


def test_far_positions_stay_finite() -> None:
    encoding = Rope().build(8)
    assert all(table.isfinite().all() for table in encoding.tables(torch.tensor([10**6])))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_frequencies_stay_float32_whatever_the_network_is_cast_to(dtype: torch.dtype) -> None:
    expected = Rope().build(64).tables(torch.arange(4097))
    cast = Rope().build(64).to(dtype).tables(torch.arange(4097))
    for ours, table in zip(cast, expected, strict=True):
        assert ours.dtype == torch.float32
        assert torch.equal(ours, table)


def test_frequencies_come_back_from_the_meta_device() -> None:
    with torch.device("meta"):
        encoding = Rope().build(8)
    restored = encoding.to_empty(device="cpu").tables(torch.arange(5))
    assert torch.equal(restored[0], Rope().build(8).tables(torch.arange(5))[0])


def test_nothing_of_it_is_saved() -> None:
    assert Rope().build(8).state_dict() == {}


def test_no_position_changes_nothing() -> None:
    encoding = NoPosition().build(7)
    x = heads()
    assert encoding.apply_to_heads(x, encoding.tables(torch.arange(7))) is x


def test_mistakes_are_named() -> None:
    with pytest.raises(ConfigError) as error:
        Rope().build(7)
    assert (error.value.option, error.value.value) == ("head_dim", 7)
    for base in (1.0, 0.0, -5.0, float("nan")):
        with pytest.raises(ConfigError) as error:
            Rope(base=base)
        assert error.value.option == "base"
