"""The example of docs/attention.md: a projection from another package, trained from a YAML file."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from command_line import TINY, Outcome

from insight.checkpoints import load_checkpoint
from insight.runtime.errors import CheckpointError

PAGE = (Path(__file__).parents[2] / "docs" / "attention.md").read_text(encoding="utf-8")
SECTION = PAGE.split("## A projection of your own")[1]


@pytest.mark.slow
def test_the_example_trains(
    insight: Callable[..., Outcome], workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, settings = (re.search(rf"```{kind}\n(.*?)```", SECTION, re.S) for kind in ("python", "yaml"))
    assert code is not None
    assert settings is not None
    assert len(code.group(1).splitlines()) + len(settings.group(1).splitlines()) < 40
    (workplace / "my_projections.py").write_text(code.group(1), encoding="utf-8")
    monkeypatch.syspath_prepend(workplace)
    config = yaml.safe_load(TINY)
    config["model"]["network"] |= yaml.safe_load(settings.group(1))
    (workplace / "own.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    outcome = insight("fit", "--config", "own.yaml")
    assert outcome.code == 0, outcome.err

    checkpoint = workplace / "runs/tiny/1/checkpoints/best.ckpt"
    with pytest.raises(CheckpointError, match="outside the allowed packages"):
        load_checkpoint(checkpoint)
    network: Any = load_checkpoint(checkpoint, allowed_packages=("insight", "my_projections")).network
    attention = network.blocks[0].attention
    hidden = torch.randn(1, 9, 16)
    _, key, value = attention.query_key_value(hidden).split([16, 8, 8], dim=-1)
    assert torch.equal(key, value)
    assert attention.query_key_value.query_key.weight.shape == (24, 16)
    ids, cache = torch.arange(9)[None], network.make_cache(1)
    with torch.no_grad():
        steps = [network(part, cache=cache) for part in ids.split(1, dim=1)]
        torch.testing.assert_close(torch.cat(steps, dim=1), network(ids), rtol=1e-4, atol=1e-5)
