"""The example of docs/attention.md: a position from another package, through YAML."""

from __future__ import annotations

import re
from pathlib import Path

import jsonargparse
import pytest
import torch
import yaml

import insight.models  # noqa: F401 (short class names are found among imported classes)
from insight.models import DecoderConfig, ReferenceKernel
from insight.models.attention.kernels import ScoreChange
from insight.models.masks import CausalMask
from insight.runtime.component import component_from_dict
from insight.runtime.errors import ConfigError

PAGE = (Path(__file__).parents[2] / "docs" / "attention.md").read_text(encoding="utf-8")
PAGE = PAGE[PAGE.index("## A position of your own") :]


def test_the_example_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, settings = (re.search(rf"```{kind}\n(.*?)```", PAGE, re.S) for kind in ("python", "yaml"))
    assert code is not None
    assert settings is not None
    assert len(code.group(1).splitlines()) < 40
    (tmp_path / "my_positions.py").write_text(code.group(1), encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--network", type=DecoderConfig)
    network = {"hidden_size": 16, "num_layers": 1, **yaml.safe_load(settings.group(1))}
    config = parser.instantiate(parser.parse_object({"network": network})).network
    assert isinstance(config, DecoderConfig)

    ids = torch.randint(0, 20, (2, 9), generator=torch.Generator().manual_seed(0))
    built = config.build(20).double().eval()
    attention = built.blocks[0].attention
    query, key, value = attention.project(built.embedding(ids), ())  # type: ignore[union-attr, operator]
    distances = torch.arange(9)[:, None] - torch.arange(9)
    bias = -0.5 * torch.log1p(distances.clamp_min(0).double())[None, None]
    expected = ReferenceKernel()(query, key, value, CausalMask(), 0.5, ScoreChange(bias=bias))
    torch.testing.assert_close(attention.mix(query, key, value, CausalMask()), expected)  # type: ignore[union-attr, operator]

    cache = built.make_cache(2)
    with torch.no_grad():
        steps = [built(part, cache=cache) for part in ids.split(1, dim=1)]
        torch.testing.assert_close(torch.cat(steps, dim=1), built(ids))

    assert component_from_dict(config.to_dict(), ("insight", "my_positions")) == config
    with pytest.raises(ConfigError, match="outside the allowed packages"):
        component_from_dict(config.to_dict())
