"""Interleaved and partial rotation against the half-split one and transformers."""

from __future__ import annotations

import pytest
import torch

from insight.models import InterleavedRope, Rope
from insight.models.positions.rope import rotate


def heads(head_dim: int = 8) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 7, 3, head_dim, generator=generator, dtype=torch.float64).requires_grad_()


def test_interleaved_is_half_split_with_channels_in_another_order() -> None:
    order = torch.arange(8).view(2, 4).T.flatten()  # 0 4 1 5 2 6 3 7
    half, interleaved = (kind(100.0).build(8).double() for kind in (Rope, InterleavedRope))
    tables = half.tables(torch.arange(7))
    x = heads().detach()
    ours = interleaved.apply_to_heads(x[..., order], tables)
    torch.testing.assert_close(ours, half.apply_to_heads(x, tables)[..., order])
    assert not torch.allclose(ours, half.apply_to_heads(x[..., order], tables))


def test_interleaved_equals_transformers() -> None:
    pytest.importorskip("transformers")
    from transformers.models.gptj.modeling_gptj import apply_rotary_pos_emb

    encoding = InterleavedRope(100.0).build(8).double()
    cosine, sine = encoding.tables(torch.arange(7))
    theirs = apply_rotary_pos_emb(heads().detach(), sine.squeeze(1)[None], cosine.squeeze(1)[None])
    torch.testing.assert_close(encoding.apply_to_heads(heads().detach(), (cosine, sine)), theirs)


@pytest.mark.parametrize("kind", [Rope, InterleavedRope])
def test_only_a_share_of_the_channels_rotates(kind: type[Rope]) -> None:
    partial, whole = kind(rotated_share=0.5).build(16).double(), kind().build(8).double()
    x = heads(16)
    turned = partial.apply_to_heads(x, partial.tables(torch.arange(7)))
    assert torch.equal(turned[..., 8:], x[..., 8:])
    expected = whole.apply_to_heads(x[..., :8], whole.tables(torch.arange(7)))
    torch.testing.assert_close(turned[..., :8], expected)


@pytest.mark.parametrize(
    "rope", [InterleavedRope(), Rope(rotated_share=0.5), InterleavedRope(rotated_share=0.5)]
)
def test_gradient_by_finite_differences(rope: Rope) -> None:
    encoding = rope.build(8).double()
    tables = encoding.tables(torch.arange(7))
    assert torch.autograd.gradcheck(lambda x: encoding.apply_to_heads(x, tables), (heads(),))


def test_rotation_back_undoes_it() -> None:
    cosine, sine = InterleavedRope().build(8).double().tables(torch.arange(7))
    x = heads().detach()
    torch.testing.assert_close(rotate(rotate(x, cosine, sine, True), cosine, -sine, True), x)
