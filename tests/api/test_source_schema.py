"""The source tells the same about the classes as Python does."""

from __future__ import annotations

import inspect
import subprocess
import sys
from typing import Any

import pytest
from lightning.pytorch import Trainer

import insight.callbacks
import insight.data
import insight.models
import insight.training
import insight.training.schedules
from insight.api.run_config import RunConfig
from insight.api.source_schema import insight_schema
from insight.runtime.component import Component

PACKAGES = (insight.models, insight.training, insight.data, insight.callbacks)


def public_classes() -> dict[str, Any]:
    found: dict[str, Any] = {"RunConfig": RunConfig, "Trainer": Trainer}
    for package in PACKAGES:
        for name in dir(package):
            value = getattr(package, name)
            if isinstance(value, type) and value.__module__.startswith("insight."):
                found[name] = value
    return found


@pytest.mark.parametrize("name", sorted(public_classes()))
def test_parameters(name: str) -> None:
    told = insight_schema().parameters(name)
    if told is None:  # the source does not tell; nothing is judged by it
        return
    known = [
        parameter.name
        for parameter in inspect.signature(public_classes()[name]).parameters.values()
        if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    assert set(told) == set(known)


def test_almost_all_configuration_classes_are_told() -> None:
    configs = [name for name, kind in public_classes().items() if issubclass(kind, Component)]
    assert len(configs) > 40
    assert [name for name in configs if insight_schema().parameters(name) is None] == []


def concrete(kind: type) -> set[str]:
    found = set() if inspect.isabstract(kind) or kind.__name__.startswith("_") else {kind.__name__}
    for child in kind.__subclasses__():
        if child.__module__.startswith("insight."):
            found |= concrete(child)
    return found


@pytest.mark.parametrize(
    "name", ["Attention", "Position", "FeedForward", "Norm", "OptimizerConfig", "ScheduleConfig"]
)
def test_choices(name: str) -> None:
    kind = public_classes().get(name) or getattr(insight.models, name)
    assert concrete(kind) - {name} <= set(insight_schema().choices(name)) | {name}
    assert set(insight_schema().choices(name)) <= concrete(kind) | {name}


def test_help_and_mistakes_come_without_torch(tmp_path: Any) -> None:
    script = (
        "import sys\n"
        "from insight.cli.main import main\n"
        "for arguments in (['fit', '--help'], ['check', '--help'],\n"
        "                  ['fit', '--config', 'quikstart'],\n"
        "                  ['check', '--config', 'quickstart', '--trainer.max_stpes', '3'],\n"
        "                  ['fit', '--config', 'quickstart', '--data.train_files', 'nothing.txt'],\n"
        "                  ['fit', '--config', 'quickstart', '--model.optimizer', 'Adamw'],\n"
        "                  ['fit', '--config', 'quickstart', '--run.num_threads', 'two'],\n"
        "                  ['fit', '--config', 'quickstart', '--trainer.barebones', 'true'],\n"
        "                  ['fit', '--config', 'quickstart', '--trainer.max_steps', '0'],\n"
        "                  ['fit', '--config', 'quickstart', '--run.root', sys.executable],\n"
        "                  ['fit', '--config', 'quickstart', '--trainer.precision', 'bf17'],\n"
        "                  ['fit', '--config', 'quickstart', '--trainer.strategy', 'foo'],\n"
        "                  ['fit', '--config', 'quickstart', '--trainer.strategy', 'fspd2'],\n"
        "                  ['validate', '--checkpoint', 'nowhere'], ['fit', '--resume', 'nowhere']):\n"
        "    code = main(arguments)\n"
        "    assert code == (0 if '--help' in arguments else 2), arguments\n"
        "heavy = {'torch', 'lightning', 'jsonargparse', 'bokeh'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "did you mean 'AdamW'?" in done.stderr
    assert "trainer.barebones=true: " in done.stderr
    assert "trainer.strategy=foo: there is no such strategy: use auto, ddp or fsdp2" in done.stderr
    assert "trainer.strategy=fspd2: there is no such strategy: did you mean 'fsdp2'?" in done.stderr
    assert "trainer.max_steps=0: trains nothing: use 1 or more, or -1 for no limit" in done.stderr
    assert "--model.network.hidden_size" in done.stdout
