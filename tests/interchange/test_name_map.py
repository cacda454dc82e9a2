"""Tables of names: joined rows, rearrangements, what is missing."""

from __future__ import annotations

import torch

from insight.interchange.name_map import NameMap, Rows, transposed, unpacked


def test_rows_are_joined_in_order_and_layers_counted() -> None:
    names = NameMap(
        {"embedding.weight": Rows("tokens")},
        {"both": Rows("a", "b"), "missing": Rows("a", "c"), "turned": Rows("b", rearrange=transposed)},
        "layer.{layer}.",
    )
    tensors = {
        "tokens": torch.ones(1, 2),
        **{
            f"layer.{layer}.{name}": torch.full((2, 3), 10.0 * layer + i)
            for layer in range(2)
            for i, name in enumerate("ab")
        },
    }
    ours = names.convert(tensors, 2)
    assert sorted(ours) == [
        "blocks.0.both",
        "blocks.0.turned",
        "blocks.1.both",
        "blocks.1.turned",
        "embedding.weight",
    ]
    assert ours["blocks.1.both"][:, 0].tolist() == [10, 10, 11, 11]
    assert ours["blocks.1.turned"].shape == (3, 2)


def test_groups_are_unpacked() -> None:
    # Two groups of two queries, one key and one value, each a head of two rows.
    packed = torch.arange(2 * 4 * 2)
    groups = packed.view(2, 4, 2)
    queries, keys, values = (part.flatten() for part in groups.split([2, 1, 1], dim=1))
    assert torch.equal(unpacked(2, 2, 2)(packed), torch.cat([queries, keys, values]))
    matrix = packed[:, None].expand(-1, 3)
    assert torch.equal(unpacked(2, 2, 2)(matrix)[:, 1], unpacked(2, 2, 2)(packed))
