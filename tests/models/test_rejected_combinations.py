"""Each combination that cannot work is refused with its reason, and what stands beside it is not.

The list: kernels that hold no weights; soft caps on fused kernels; FlexAttention's gradient on a CPU;
positions of one sequence in attention to another; keys that go stale in a cache; latent attention with what
would need keys of its own for every head; linear mixers with what needs scores; rings with masks that look
ahead; sizes that do not divide; positions beyond a table.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.attention import flex_attention as torch_flex

import insight.models
from insight.models import (
    Alibi,
    Attention,
    BidirectionalMask,
    CausalMask,
    Decoder,
    DecoderConfig,
    DifferentialAttention,
    DynamicNTKScaling,
    EncoderConfig,
    EncoderDecoderConfig,
    FullCache,
    GatedDeltaNet,
    GatedLinearAttention,
    GroupedQueryAttention,
    HeadNorm,
    LatentAttention,
    LearnedPosition,
    LongRopeScaling,
    NoPosition,
    ParallelResidual,
    PrefixMask,
    ReferenceKernel,
    RelativeBias,
    Retention,
    RingCache,
    Rope,
    SDPAKernel,
    TiledKernel,
)
from insight.models.caches import CacheShape
from insight.runtime.component import component_from_dict
from insight.runtime.errors import ConfigError


@pytest.fixture(autouse=True)
def _untraced_flex(monkeypatch: pytest.MonkeyPatch) -> None:
    """FlexAttention without its tracing, which takes seconds."""
    monkeypatch.setattr(torch_flex, "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG", True)


IDS = torch.randint(0, 20, (2, 12), generator=torch.Generator().manual_seed(0))


def network(attention: Attention, **options: Any) -> Decoder:
    settings = {"hidden_size": 16, "num_layers": 1, "max_sequence_length": 12} | options
    return DecoderConfig(attention=attention, **settings).build(20)


def from_yaml(name: str, **options: Any) -> object:
    """A component with options as a configuration file gives them."""
    return component_from_dict({"class_path": f"insight.models.{name}", "init_args": options})


def cross(attention: Attention, **options: Any) -> EncoderDecoderConfig:
    return EncoderDecoderConfig(cross_attention=attention, **options)


def encode_ahead(mask: Any) -> object:
    """What a ring is asked to hold while queries may look ahead, or not."""
    ring = RingCache(CacheShape(2, 9, torch.float32, torch.device("cpu")), 1, 4, window=3)
    return ring.append(torch.zeros(2, 1, 2, 4), torch.zeros(2, 1, 2, 4), mask)


def flex(trains: bool) -> object:
    with torch.set_grad_enabled(trains):
        return network(GroupedQueryAttention(2, kernel="flex"))(IDS)


Call = Callable[[], object]
DYNAMIC = GroupedQueryAttention(2, position=Rope(scaling=DynamicNTKScaling(2.0, 8)))
LONG = GroupedQueryAttention(2, position=Rope(scaling=LongRopeScaling((1.0,) * 4, (2.0,) * 4, 4.0, 8)))
LEARNED: dict[str, Any] = {"input_position": LearnedPosition()}

# What is refused, what the refusal names, and the nearest thing that is not refused.
CASES: dict[str, tuple[Call, str, Call]] = {
    "soft cap on a fused kernel": (
        lambda: GroupedQueryAttention(kernel="sdpa", score_soft_cap=50.0),
        "kernel=sdpa: ",
        lambda: GroupedQueryAttention(kernel="auto", score_soft_cap=50.0),
    ),
    "soft cap on tiles": (
        lambda: GroupedQueryAttention(kernel="tiled", score_soft_cap=50.0),
        "kernel=tiled: ",
        lambda: GroupedQueryAttention(kernel="reference", score_soft_cap=50.0),
    ),
    "soft cap over ALiBi": (
        lambda: network(GroupedQueryAttention(2, position=Alibi(), score_soft_cap=2.0)),
        "position=Alibi: score_soft_cap=2",
        lambda: network(GroupedQueryAttention(2, position=RelativeBias(), score_soft_cap=2.0)),
    ),
    "norm over the channels of ALiBi": (
        lambda: network(GroupedQueryAttention(2, position=Alibi(), qk_norm=HeadNorm(after_position=True))),
        "position=Alibi: qk_norm with after_position=true",
        lambda: network(GroupedQueryAttention(2, position=Alibi(), qk_norm=HeadNorm())),
    ),
    "gradient of FlexAttention on a CPU": (
        lambda: flex(trains=True),
        "kernel=flex: ",
        lambda: flex(trains=False),
    ),
    "rotation across two sequences": (
        lambda: cross(GroupedQueryAttention(4, position=Rope())),
        "position=Rope",
        lambda: cross(GroupedQueryAttention(4, position=NoPosition())),
    ),
    "ALiBi across two sequences": (
        lambda: cross(GroupedQueryAttention(4, position=Alibi())),
        "position=Alibi",
        lambda: cross(DifferentialAttention(4, position=Alibi(bidirectional=True))),
    ),
    "window across two sequences": (
        lambda: cross(GroupedQueryAttention(4, position=NoPosition(), window=8)),
        "window=8",
        lambda: cross(GroupedQueryAttention(4, position=NoPosition(), sinks=True)),
    ),
    "latent attention across two sequences": (
        lambda: cross(LatentAttention()),
        "cross_attention=LatentAttention",
        lambda: EncoderDecoderConfig(decoder=DecoderConfig(attention=LatentAttention())),
    ),
    "cross-attention in parallel branches": (
        lambda: EncoderDecoderConfig(decoder=DecoderConfig(block=ParallelResidual())),
        "decoder.block=ParallelResidual",
        lambda: EncoderDecoderConfig(EncoderConfig(block=ParallelResidual())),
    ),
    "dynamic wavelengths in a cache": (
        lambda: network(DYNAMIC).make_cache(1, max_length=9),
        "max_length=9",
        lambda: network(DYNAMIC).make_cache(1, max_length=8),
    ),
    "wavelengths of two lengths in a cache": (
        lambda: network(LONG).make_cache(1, max_length=9),
        "max_length=9",
        lambda: network(LONG).make_cache(1, max_length=8),
    ),
    "latent attention with a norm of whole queries": (
        lambda: from_yaml("LatentAttention", qk_norm="rms"),
        "LatentAttention has no field 'qk_norm'",
        lambda: from_yaml("LatentAttention", norm_eps=1e-5),
    ),
    "latent attention with ALiBi": (
        lambda: LatentAttention(position=Alibi()),
        "position=Alibi",
        lambda: LatentAttention(position=Rope()),
    ),
    "latent attention with a relative bias": (
        lambda: LatentAttention(position=RelativeBias()),
        "position=RelativeBias",
        lambda: LatentAttention(position=NoPosition()),
    ),
    "linear mixer in an encoder": (
        lambda: EncoderConfig(attention=GatedDeltaNet()),
        "attention=GatedDeltaNet",
        lambda: DecoderConfig(attention=GatedDeltaNet()),
    ),
    "linear mixer with a window": (
        lambda: from_yaml("GatedDeltaNet", window=4),
        "GatedDeltaNet has no field 'window'",
        lambda: from_yaml("GatedDeltaNet", convolution_width=3),
    ),
    "linear mixer with a bias": (
        lambda: network(Retention(2, position=RelativeBias())),
        "position=RelativeBias: a linear mixer has no scores",
        lambda: network(Retention(2, position=Rope())),
    ),
    "linear mixer with sinks": (
        lambda: from_yaml("GatedLinearAttention", sinks=True),
        "GatedLinearAttention has no field 'sinks'",
        lambda: network(GatedLinearAttention(2)),
    ),
    "linear mixer with a kernel that gives weights": (
        lambda: from_yaml("Retention", kernel="reference"),
        "Retention has no field 'kernel'",
        lambda: from_yaml("GroupedQueryAttention", kernel="reference"),
    ),
    "linear mixer with a prefix": (
        lambda: network(GatedDeltaNet(2))(IDS, prefix_lengths=torch.tensor([2, 0])),
        "PrefixMask over a linear mixer",
        lambda: network(GatedDeltaNet(2))(IDS, document_ids=torch.zeros_like(IDS)),
    ),
    "ring in both directions": (
        lambda: encode_ahead(BidirectionalMask()),
        "BidirectionalMask with a cache",
        lambda: encode_ahead(CausalMask(3)),
    ),
    "ring with a prefix": (
        lambda: encode_ahead(PrefixMask(torch.tensor([1, 1]))),
        "PrefixMask with a cache",
        lambda: encode_ahead(CausalMask()),
    ),
    "odd number of rotated channels": (
        lambda: network(GroupedQueryAttention(2, head_dim=5)),
        "head_dim=5",
        lambda: network(GroupedQueryAttention(2, head_dim=5, position=NoPosition())),
    ),
    "odd share of rotated channels": (
        lambda: network(GroupedQueryAttention(2, head_dim=12, position=Rope(rotated_share=0.25))),
        "rotated_share=0.25",
        lambda: network(GroupedQueryAttention(2, head_dim=16, position=Rope(rotated_share=0.25))),
    ),
    "key heads that do not divide": (
        lambda: GroupedQueryAttention(6, 4),
        "num_key_value_heads=4: must divide num_heads=6: use 1, 2, 3 or 6",
        lambda: GroupedQueryAttention(6, 3),
    ),
    "heads that do not divide": (
        lambda: DecoderConfig(hidden_size=30, attention=GroupedQueryAttention(4)),
        "num_heads=4",
        lambda: DecoderConfig(hidden_size=30, attention=GroupedQueryAttention(4, head_dim=8)),
    ),
    "differential attention with odd heads": (
        lambda: DifferentialAttention(3),
        "num_heads=3",
        lambda: DifferentialAttention(6, 1),
    ),
    "differential attention with odd key heads": (
        lambda: DifferentialAttention(6, 3),
        "num_key_value_heads=3",
        lambda: DifferentialAttention(6, 2),
    ),
    "no room in a cache": (
        lambda: network(GroupedQueryAttention(2))(
            IDS, cache=network(GroupedQueryAttention(2)).make_cache(2, max_length=11)
        ),
        "exceed max_length=11",
        lambda: network(GroupedQueryAttention(2))(
            IDS, cache=network(GroupedQueryAttention(2)).make_cache(2, max_length=12)
        ),
    ),
    "learned position beyond its table": (
        lambda: network(GroupedQueryAttention(2, position=NoPosition()), **LEARNED)(IDS.repeat(1, 2)),
        "position 23: learned positions end at 11",
        lambda: network(GroupedQueryAttention(2, position=NoPosition()), **LEARNED)(IDS),
    ),
}


@pytest.mark.parametrize(("refused", "said", "allowed"), CASES.values(), ids=CASES.keys())
def test_refused_in_one_line_with_a_remedy(refused: Call, said: str, allowed: Call) -> None:
    with pytest.raises(ConfigError) as caught:
        refused()
    assert said in str(caught.value)
    assert caught.value.remedy
    assert "\n" not in str(caught.value)
    allowed()  # a rule that refused more than it says would be noticed


def test_only_the_reference_has_weights_to_look_at() -> None:
    assert not any(hasattr(kernel, "weights") for kernel in (SDPAKernel(), TiledKernel()))
    assert ReferenceKernel.weights.__doc__


def test_a_cache_shorter_than_a_window_keeps_every_token_it_may_hold() -> None:
    """A ring of fewer slots than the window would forget keys; it is not made."""
    layer = network(GroupedQueryAttention(2, window=9)).make_cache(2, max_length=7).layers[0]
    assert isinstance(layer, FullCache)


def errors_without_remedy(source: str) -> list[int]:
    """Lines that make a :class:`ConfigError` of a problem alone, or of an empty remedy."""
    calls = [
        node
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "ConfigError"
    ]
    empty = (None, "")
    return [
        call.lineno
        for call in calls
        if len(call.args) != 2 or (isinstance(call.args[1], ast.Constant) and call.args[1].value in empty)
    ]


def test_every_error_of_a_network_says_what_to_do() -> None:
    folder = Path(insight.models.__file__).parent
    found = {
        str(path.relative_to(folder)): lines
        for path in folder.rglob("*.py")
        if (lines := errors_without_remedy(path.read_text(encoding="utf-8")))
    }
    assert not found


def test_an_error_without_a_remedy_would_be_noticed() -> None:
    assert errors_without_remedy('raise ConfigError("num_heads=3: too few", "use 4")') == []
    assert errors_without_remedy('raise ConfigError("num_heads=3: too few")\nConfigError("x", "")') == [1, 2]
