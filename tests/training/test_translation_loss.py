"""The loss of translation is that of formulas written out here, in float64; padding takes no part in it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny_translation_training import make_data, make_module, make_network
from torch import nn
from torch.nn import functional

from insight.data.pairs import TranslationBatch
from insight.data.sampling import IGNORED_TARGET
from insight.models import MLP, DecoderConfig, EncoderConfig, EncoderDecoderConfig, GroupedQueryAttention
from insight.models.norms import LayerNorm
from insight.models.positions import NoPosition
from insight.training import TranslationModule

VOCABULARY = 40


def ready(module: TranslationModule, seed: int = 0) -> TranslationModule:
    """The module with a network of random weights, and a step that returns the summed loss as it is."""
    torch.manual_seed(seed)
    module.network = module.network_config.build(VOCABULARY, VOCABULARY)
    for parameter in module.network.parameters():
        nn.init.normal_(parameter, std=0.3)
    module.training_network = lambda *ids, **more: module.network(*ids, **more)
    module.register_buffer("token_byte_lengths", torch.ones(VOCABULARY, dtype=torch.int64))
    module.step = SimpleNamespace(add=lambda summed, batch: summed)  # type: ignore[assignment]
    return module


def padded_batch() -> TranslationBatch:
    """Random pairs of unlike lengths on the right of which padding stands."""
    lengths = ((5, 3), (2, 6), (4, 4))
    generator = torch.Generator().manual_seed(1)
    widths = [max(side) for side in zip(*lengths, strict=True)]
    drawn = [torch.randint(1, VOCABULARY, (len(lengths), width), generator=generator) for width in widths]
    masks = [
        torch.arange(width) < torch.tensor(side).unsqueeze(1)
        for width, side in zip(widths, zip(*lengths, strict=True), strict=True)
    ]
    source, target = (ids.where(mask, torch.tensor(0)) for ids, mask in zip(drawn, masks, strict=True))
    target_ids = torch.cat([torch.zeros(len(lengths), 1, dtype=torch.int64), target[:, :-1]], dim=1)
    targets = target.where(masks[1], torch.tensor(IGNORED_TARGET))
    return TranslationBatch(source, masks[0], target_ids, targets, len(lengths), int(sum(map(sum, lengths))))


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.35])
def test_label_smoothing_is_that_of_float64(smoothing: float) -> None:
    module, batch = ready(make_module(label_smoothing=smoothing)), padded_batch()
    summed: Any = module.training_step(batch, 0)
    module.network.double()
    hidden = module.network(batch.source_ids, batch.target_ids, source_mask=batch.source_mask)
    logits = module.network.logits(hidden)
    spread = functional.cross_entropy(
        logits.flatten(0, 1), batch.targets.flatten(), label_smoothing=smoothing, reduction="sum"
    )
    plain = functional.cross_entropy(logits.flatten(0, 1), batch.targets.flatten(), reduction="sum")
    assert float(summed.loss) == pytest.approx(float(spread), rel=1e-5)
    assert float(summed.negative_log_likelihood) == pytest.approx(float(plain), rel=1e-5)
    assert int(summed.num_valid) == 13
    assert (float(spread) == pytest.approx(float(plain), rel=1e-4)) is (smoothing == 0)


def r_drop_in_float64(hidden: torch.Tensor, module: TranslationModule, targets: torch.Tensor) -> torch.Tensor:
    """Half of NLL1 + NLL2 + factor * (KL(1, 2) + KL(2, 1)) / 2 (arXiv 2106.14448, equations 3 and 4)."""
    weight = module.network.decoder.head_weight.detach().double()
    kept = targets != IGNORED_TARGET
    first, second = ((half[kept] @ weight.T).log_softmax(-1) for half in hidden.chunk(2))
    chosen = targets[kept].unsqueeze(1)
    nll = -(first.gather(1, chosen).sum() + second.gather(1, chosen).sum())
    divergence = (first.exp() * (first - second)).sum() + (second.exp() * (second - first)).sum()
    return (nll + module.r_drop * divergence / 2) / 2


@pytest.mark.parametrize("one_sided", [False, True])
def test_r_drop_is_that_of_float64(monkeypatch: pytest.MonkeyPatch, one_sided: bool) -> None:
    """The loss and its gradient; with the planted fault the divergence has one direction."""
    module, batch = ready(make_module(r_drop=2.5, label_smoothing=0.0)), padded_batch()
    if one_sided:
        kl_div = functional.kl_div
        monkeypatch.setattr(
            "insight.training.translation.F.kl_div",
            lambda first, second, **more: kl_div(*sorted((first, second), key=id), **more),
        )
    hidden = torch.randn(6, batch.targets.shape[1], 32, requires_grad=True)
    module.training_network = lambda *_, **__: hidden
    summed: Any = module.training_step(batch, 0)
    torch.autograd.backward(summed.loss)
    assert hidden.grad is not None
    exact = hidden.detach().double().requires_grad_()
    expected = r_drop_in_float64(exact, module, batch.targets)
    torch.autograd.backward(expected)
    assert exact.grad is not None
    same = float(summed.loss) == pytest.approx(float(expected), rel=1e-5)
    same_gradient = torch.allclose(hidden.grad.double(), exact.grad, rtol=1e-4, atol=1e-6)
    assert (same, same_gradient) == (not one_sided, not one_sided)
    assert int(summed.num_valid) == 13


def test_r_drop_reads_each_pair_twice_under_different_dropout() -> None:
    module, batch = ready(make_module(make_network(dropout=0.3), r_drop=1.0)), padded_batch()
    seen: list[torch.Tensor] = []
    network = module.network.train()

    def watched(*ids: torch.Tensor, **more: torch.Tensor) -> torch.Tensor:
        seen.append(network(*ids, **more))
        return seen[-1]

    module.training_network = watched
    summed: Any = module.training_step(batch, 0)
    first, second = seen[0].chunk(2)
    assert len(first) == 3
    assert not torch.allclose(first, second)
    assert torch.isfinite(summed.loss)


def stock_transformer(network: nn.Module, width: int) -> nn.Transformer:
    """torch's own transformer with the weights of a network of one layer a side."""
    stock = nn.Transformer(width, 2, 1, 1, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True)
    ours = dict(network.named_parameters())
    source: torch.Tensor
    for name, parameter in stock.named_parameters():
        side, _, rest = name.partition(".")
        if rest.startswith("norm."):
            source = ours[f"{side}.norm.{rest.removeprefix('norm.')}"]
        else:
            part, kind = rest.removeprefix("layers.0.").rsplit(".", 1)
            cross = part.startswith("multihead_attn")
            attention = f"{side}.blocks.0.{'cross_attention' if cross else 'attention'}"
            ending = "bias" if kind.endswith("bias") else "weight"
            if kind.startswith("in_proj"):
                names = ["query", "key_value"] if cross else ["query_key_value"]
                source = torch.cat([ours[f"{attention}.{one}.{ending}"] for one in names])
            else:
                norms = ["attention_norm", *(["cross_attention_norm"] if side == "decoder" else [])]
                norms.append("feed_forward_norm")
                places = {f"norm{number}": norm for number, norm in enumerate(norms, start=1)}
                places |= {"linear1": "feed_forward.up", "linear2": "feed_forward.down"}
                out = part.endswith("out_proj")
                source = ours[
                    f"{attention}.output.{ending}" if out else f"{side}.blocks.0.{places[part]}.{ending}"
                ]
        parameter.data.copy_(source.detach())
    return stock


def test_loss_is_that_of_a_stock_transformer() -> None:
    width = 32
    attention = GroupedQueryAttention(num_heads=2, qkv_bias=True, output_bias=True, position=NoPosition())
    sizes: dict[str, Any] = {
        "hidden_size": width, "num_layers": 1, "max_sequence_length": 16, "norm": LayerNorm(eps=1e-5),
        "attention": attention, "feed_forward": MLP(bias=True), "position": NoPosition(),
    }  # fmt: skip
    sizes.pop("position")
    network = EncoderDecoderConfig(
        EncoderConfig(**sizes), DecoderConfig(tie_embeddings=True, **sizes), attention, share_embeddings=True
    )
    module, batch = ready(make_module(network, label_smoothing=0.0)), padded_batch()
    summed: Any = module.training_step(batch, 0)
    stock = stock_transformer(module.network, width).eval()
    table = module.network.decoder.head_weight.detach()
    assert batch.source_mask is not None
    hidden = stock(
        table[batch.source_ids], table[batch.target_ids],
        tgt_mask=nn.Transformer.generate_square_subsequent_mask(batch.target_ids.shape[1]),
        src_key_padding_mask=~batch.source_mask, memory_key_padding_mask=~batch.source_mask,
    )  # fmt: skip
    expected = functional.cross_entropy(
        (hidden @ table.T).flatten(0, 1), batch.targets.flatten(), reduction="sum"
    )
    assert float(summed.loss) == pytest.approx(float(expected), rel=1e-4)


@pytest.mark.parametrize("without_mask", [False, True])
def test_padding_does_not_change_the_loss(tmp_path: Path, without_mask: bool) -> None:
    """Pairs one by one and together; with the planted fault, the padding of the source is read."""
    data = make_data(tmp_path)
    data.setup("fit")
    stores = data.pair_stores("train")
    order = stores.lengths.sum(axis=1).argsort()
    pairs = order[[0, 5, -5, -1]]
    module = make_module()
    torch.manual_seed(0)
    module.network = module.network_config.build(data.vocabulary_size, data.vocabulary_size).eval()
    for parameter in module.network.parameters():
        nn.init.normal_(parameter, std=0.3)

    def losses(chosen: Any) -> list[float]:
        batch = stores.batch(chosen)
        if without_mask:
            batch.source_mask = None
        return [float(row.sum()) for row in module.predict_step(batch, 0)]

    alone = [losses(pairs[index : index + 1])[0] for index in range(len(pairs))]
    assert (losses(pairs) == pytest.approx(alone, rel=1e-4)) is not without_mask
