"""Targets: what they can do, which one exactly, and how one of them fails."""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from insight.data.tokenizers import ByteTokenizer
from insight.generation import GenerationSettings
from insight.models import DecoderConfig, GroupedQueryAttention
from insight.runtime.errors import ConfigError
from insight.safety import CallableTarget, NetworkTarget
from insight.safety.network_targets import path_identity
from insight.safety.targets import Unanswered, code_identity, python_target

TOKENIZER = ByteTokenizer()


@pytest.fixture(scope="module")
def target() -> NetworkTarget:
    torch.manual_seed(0)
    attention = GroupedQueryAttention(num_heads=2, num_key_value_heads=1)
    config = DecoderConfig(hidden_size=16, num_layers=1, attention=attention, max_sequence_length=32)
    return NetworkTarget(config.build(TOKENIZER.vocabulary_size), TOKENIZER, "tiny", "tiny")


def test_capabilities_are_what_there_is_a_function_for() -> None:
    assert CallableTarget("a", lambda prompt, settings: "").capabilities == {"generate"}
    assert CallableTarget("a", None, lambda prompt, text: 0.0).capabilities == {"log_likelihood"}
    with pytest.raises(ConfigError, match="can do nothing"):
        CallableTarget("a")


def test_every_sample_has_its_own_seed() -> None:
    seen = []

    def write(prompt: str, settings: GenerationSettings) -> str:
        seen.append((prompt, settings.seed, settings.temperature))
        return prompt

    CallableTarget("a", write).generate(
        ["x", "x", "y"], GenerationSettings(temperature=0.3, seed=9), [4, 5, 6]
    )
    assert seen == [("x", 4, 0.3), ("x", 5, 0.3), ("y", 6, 0.3)]


def test_an_answer_that_is_no_text_is_an_error() -> None:
    target = CallableTarget("a", lambda prompt, settings: 7)  # type: ignore[arg-type, return-value]
    (answer,) = target.generate(["x"], GenerationSettings(), [0])
    assert answer == Unanswered("error", "TypeError: returned int, not str")


def test_a_text_that_does_not_fit_fails_alone(target: NetworkTarget) -> None:
    short, long, other = target.log_likelihood(["a", "b", ""], [["b", "c"], ["x" * 60], ["d"]])
    assert isinstance(long, Unanswered)
    assert "the context holds 32" in long.message
    assert not isinstance(short, Unanswered)
    assert not isinstance(other, Unanswered)
    assert (len(short), len(other)) == (2, 1)
    assert all(math.isfinite(value) and value < 0 for value in [*short, *other])


def test_a_network_writes_and_is_left_as_it_was(target: NetworkTarget) -> None:
    before = torch.get_rng_state()
    settings = GenerationSettings(max_new_tokens=5, temperature=1.0)
    texts = target.generate(["a", "bc"], settings, [1, 2])
    assert texts == target.generate(["a", "bc"], settings, [1, 2])
    assert texts != target.generate(["a", "bc"], settings, [3, 4])
    assert torch.equal(torch.get_rng_state(), before)


def test_a_function_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "upper_model.py").write_text(
        "def upper(prompt, settings):\n    return prompt.upper()\n", encoding="utf-8"
    )
    (tmp_path / "broken_model.py").write_text("1 / 0\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    target = python_target("upper_model:upper")
    assert target.generate(["a"], GenerationSettings(), [0]) == ["A"]
    for argument, said in (
        ("upper_model:uper", "did you mean 'upper'?"),
        ("upper_model", "write python:MODULE:FUNCTION"),
        ("broken_model:f", "ZeroDivisionError"),
        ("no_such_model:f", "cannot be imported"),
    ):
        with pytest.raises(ConfigError) as caught:
            python_target(argument)
        assert said in str(caught.value)
    sys.modules.pop("upper_model")


def test_identity_is_that_of_the_bytes(tmp_path: Path) -> None:
    file, folder = tmp_path / "a.ckpt", tmp_path / "artefact"
    file.write_bytes(b"one")
    folder.mkdir()
    (folder / "weights.pt").write_bytes(b"one")
    first = (path_identity(file), path_identity(folder))
    assert first == (path_identity(file), path_identity(folder))
    file.write_bytes(b"two")
    (folder / "weights.pt").rename(folder / "other.pt")
    assert len({*first, path_identity(file), path_identity(folder)}) == 4


def identity_of(folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.syspath_prepend(folder)
    try:
        return python_target("answering:answer").identity
    finally:
        for name in [name for name in sys.modules if name.split(".")[0] in ("answering", "rules")]:
            del sys.modules[name]


def test_edited_code_is_another_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file of the function counts, and so do files beside it, also where they are imported late."""
    (tmp_path / "rules").mkdir()
    main, rule = tmp_path / "answering.py", tmp_path / "rules" / "loud.py"
    main.write_text("def answer(prompt, settings):\n    from rules.loud import say\n    return say(prompt)\n")
    rule.write_text("def say(text):\n    return text.upper()\n")
    first = identity_of(tmp_path, monkeypatch)
    assert identity_of(tmp_path, monkeypatch) == first
    rule.write_text("def say(text):\n    return text.lower()\n")
    second = identity_of(tmp_path, monkeypatch)
    main.write_text(main.read_text() + "# edited\n")
    assert len({first, second, identity_of(tmp_path, monkeypatch)}) == 3
    (tmp_path / "not_imported.py").write_text("x = 1\n")
    assert identity_of(tmp_path, monkeypatch) == identity_of(tmp_path, monkeypatch)


def test_what_a_function_is_bound_to_counts() -> None:
    def bound_to(suffix: object) -> Callable[[str, GenerationSettings], str]:
        return lambda prompt, settings: f"{prompt}{suffix}"

    pairs = ({"a": 1, "b": 2}, {"a": 1, "b": 3})  # every entry counts, not only the first
    values: tuple[object, ...] = ("a", "b", 1, 1.0, ("a",), {"a": 1}, *pairs, None)
    identities = [code_identity(bound_to(value)) for value in values]
    assert len(set(identities)) == len(values)
    assert identities == [code_identity(bound_to(value)) for value in values]
    assert code_identity(functools.partial(bound_to("a"), "x")) != code_identity(bound_to("a"))
    assert code_identity(lambda prompt, settings: "yes") != code_identity(lambda prompt, settings: "no")
    assert CallableTarget("mine", bound_to("a")).identity != CallableTarget("mine", bound_to("b")).identity
    assert CallableTarget("mine", bound_to("a"), identity="v1").identity == "v1"
