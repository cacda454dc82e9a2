"""A sliced network scores the tokens that stayed as the whole one did."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import insight
from insight.api.tokenize import prune_tokenizer as prune_command
from insight.checkpoints import load_checkpoint, load_weights_into
from insight.checkpoints.pruned_vocabulary import write_pruned_checkpoint
from insight.data import BPETokenizerConfig, ByteTokenizer, read_corpus
from insight.data.tokenizers.pruning import plan_pruning, prune_tokenizer
from insight.models import DecoderConfig, GroupedQueryAttention
from insight.runtime.errors import CheckpointError

TEXT = read_corpus("austen-emma")[:30_000]
BPE = BPETokenizerConfig(400).build([TEXT])
COUNTS = np.bincount(BPE.encode(TEXT[:9_000]), minlength=400)
PRUNED = prune_tokenizer(BPE, plan_pruning(BPE, COUNTS).order[:90])
REMOVED = np.flatnonzero(PRUNED.old_to_new < 0)


def checkpoint(path: Path, tied: bool) -> Path:
    config = DecoderConfig(
        hidden_size=16,
        num_layers=1,
        attention=GroupedQueryAttention(num_heads=2, num_key_value_heads=1),
        max_sequence_length=64,
        tie_embeddings=tied,
    )
    torch.manual_seed(1)
    network = config.build(BPE.vocabulary_size)
    for parameter in network.parameters():  # some begin at zero
        torch.nn.init.normal_(parameter, std=0.2)
    torch.save(
        {
            "state_dict": {f"network.{name}": value for name, value in network.state_dict().items()},
            "insight": {
                "format_version": 1,
                "network": config.to_dict(),
                "tokenizer": BPE.to_json(),
                "vocabulary_size": BPE.vocabulary_size,
                "sequence_length": 32,
                "open_window": {"gradient": torch.ones(3)},
            },
            "optimizer_states": [torch.ones(400)],
            "global_step": 7,
        },
        path,
    )
    return path


@pytest.fixture(scope="module", params=[False, True], ids=["head", "tied"])
def models(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("pruned")
    path = checkpoint(folder / "old.ckpt", request.param)
    write_pruned_checkpoint(path, PRUNED, BPE.fingerprint(), folder / "new.ckpt")
    return path, folder / "new.ckpt"


words = st.lists(st.sampled_from(TEXT[:3000].split(" ")), min_size=1, max_size=12).map(" ".join)


@pytest.mark.slow
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(words)
def test_same_scores_for_text_without_pruned_tokens(models: tuple[Path, Path], text: str) -> None:
    old, new = (load_checkpoint(path) for path in models)
    before, after = (torch.tensor([loaded.tokenizer.encode(text)[:60]]) for loaded in (old, new))
    if set(before[0].tolist()) & set(REMOVED.tolist()):
        return
    with torch.inference_mode():
        whole = old.network.logits(old.network(before))
        expected = whole[..., PRUNED.kept_ids]
        scores = new.network.logits(new.network(after))
    torch.testing.assert_close(scores, expected, rtol=1e-5, atol=1e-5)
    # Probabilities are shared among fewer tokens: each gains what the pruned ones had.
    pruned = whole.softmax(-1)[..., REMOVED].sum(-1, keepdim=True)
    gained = scores.log_softmax(-1) - whole.log_softmax(-1)[..., PRUNED.kept_ids]
    torch.testing.assert_close(gained, -torch.log1p(-pruned).expand_as(gained), rtol=1e-3, atol=1e-5)
    assert (pruned > 0).all()


def test_log_probabilities_rise_by_what_the_pruned_tokens_had(models: tuple[Path, Path]) -> None:
    """Logits stay, probabilities do not: they are shared among fewer tokens, as page and help say."""
    old, new = (load_checkpoint(path) for path in models)
    before, after = (torch.tensor([loaded.tokenizer.encode("xqzx")]) for loaded in (old, new))
    with torch.inference_mode():
        whole = old.network.logits(old.network(before)).double()
        scores = new.network.logits(new.network(after)).double()
    rise = scores.log_softmax(-1) - whole.log_softmax(-1)[..., PRUNED.kept_ids]
    share = whole.softmax(-1)[..., REMOVED].sum(-1, keepdim=True)
    torch.testing.assert_close(rise, -torch.log1p(-share).expand_as(rise), rtol=1e-4, atol=1e-6)
    assert rise.min() > 0.03  # it is no rounding
    page = (Path(insight.__file__).parents[1] / "docs/data.md").read_text(encoding="utf-8")
    section = " ".join(
        re.split(r"^## ", page, flags=re.MULTILINE)[
            page.count("\n## ", 0, page.index("insight tokenizer prune"))
        ].split()
    )
    assert "is never lower than before; it is higher by `-log(1 - p)`" in section
    assert "scores it as before" not in section
    assert "their log-probabilities rise" in " ".join((prune_command.__doc__ or "").split())


def test_planted_fault_is_seen(models: tuple[Path, Path]) -> None:
    """Rows shifted by one are other tokens' rows."""
    old, new = (load_checkpoint(path) for path in models)
    # Hardly a pair of these is a token, so that both tokenizers cut them alike.
    before, after = (torch.tensor([loaded.tokenizer.encode("xqzx")]) for loaded in (old, new))
    with torch.no_grad():
        new.network.embedding.weight.copy_(new.network.embedding.weight.roll(1, 0))
        expected = old.network.logits(old.network(before))[..., PRUNED.kept_ids]
        scores = new.network.logits(new.network(after))
    assert not torch.allclose(scores, expected, rtol=1e-3, atol=1e-3)


def test_what_the_new_checkpoint_is(models: tuple[Path, Path]) -> None:
    old, new = models
    loaded = load_checkpoint(new)
    assert loaded.tokenizer.fingerprint() == PRUNED.tokenizer.fingerprint()
    assert loaded.network.vocabulary_size == 310
    assert loaded.metadata["step"] == 7
    assert new.stat().st_size < old.stat().st_size
    contents = torch.load(new, weights_only=True)
    assert "optimizer_states" not in contents
    assert "open_window" not in contents["insight"]
    # What a further training begins with.
    network = loaded.network_config.build(310)
    load_weights_into(network, new, PRUNED.tokenizer)


def test_checkpoints_of_others_are_refused(models: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="another tokenizer"):
        write_pruned_checkpoint(models[0], PRUNED, ByteTokenizer().fingerprint(), tmp_path / "new.ckpt")
    contents = torch.load(models[0], weights_only=True)
    contents["state_dict"]["network.embedding.weight"] = torch.zeros(399, 16)
    torch.save(contents, tmp_path / "odd.ckpt")
    with pytest.raises(CheckpointError, match="399 rows, the tokenizer 400 tokens"):
        write_pruned_checkpoint(tmp_path / "odd.ckpt", PRUNED, BPE.fingerprint(), tmp_path / "new.ckpt")
    assert not (tmp_path / "new.ckpt").exists()
