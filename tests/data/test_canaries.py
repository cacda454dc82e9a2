"""Planted secrets: what is planted is fixed by the seed, only training text holds it, and it is recorded."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from insight.data import BPETokenizerConfig, CanaryInjection, LanguageModelingDataModule, read_corpus
from insight.data.canaries import NUM_OWNERS
from insight.runtime.component import component_from_dict
from insight.runtime.errors import CheckpointError, ConfigError

Make = Callable[..., LanguageModelingDataModule]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """A data module over a small text, set up."""
    (tmp_path / "text.txt").write_text(read_corpus("austen-emma")[:20_000])

    def build(canaries: CanaryInjection | None = None, **options: Any) -> LanguageModelingDataModule:
        data = LanguageModelingDataModule(
            str(tmp_path / "text.txt"),
            tokenizer=BPETokenizerConfig(300),
            cache_dir=str(tmp_path / "cache"),
            sequence_length=16,
            batch_size=4,
            canaries=canaries,
            **options,
        )
        data.prepare_data()
        data.setup()
        return data

    return build


def documents(data: LanguageModelingDataModule, split: str) -> list[str]:
    store = data.store(split)
    return [data.tokenizer.decode(store.document(index)) for index in range(store.num_documents)]


def test_canaries_are_fixed_by_the_seed_and_share_nothing() -> None:
    canaries = CanaryInjection(num_canaries=NUM_OWNERS).canaries()
    assert canaries == CanaryInjection(num_canaries=NUM_OWNERS).canaries()
    assert canaries != CanaryInjection(num_canaries=NUM_OWNERS, seed=1).canaries()
    assert len({canary.prompt for canary in canaries}) == NUM_OWNERS
    assert len({canary.secret for canary in canaries}) == NUM_OWNERS
    assert all(re.fullmatch(r"\d{4}", canary.secret) for canary in canaries)
    for canary in canaries:
        assert re.fullmatch(rf"The secret number of [A-Z][a-z]+ is {canary.secret}\.", canary.sentence)
        assert not canary.prompt.endswith(" ")


def test_secrets_are_spread_over_all_that_are_possible() -> None:
    """Exposure takes every secret to be equally likely: no first digit may be favoured by the drawing."""
    first = Counter(
        canary.secret[0]
        for seed in range(60)
        for canary in CanaryInjection(num_canaries=50, seed=seed).canaries()
    )
    assert len(first) == 10
    assert all(200 < count < 400 for count in first.values())  # 300 expected, standard deviation 16


def test_prompt_and_continuation_get_the_tokens_that_were_trained_on(make: Make) -> None:
    data = make(CanaryInjection(num_canaries=20))
    encode = data.tokenizer.encode
    assert data.canaries is not None
    for canary in data.canaries.canaries():
        rest = canary.continuation.replace("{secret}", canary.secret)
        assert encode(canary.prompt) + encode(rest) + encode(canary.ending) == encode(canary.sentence)


def test_training_text_alone_holds_them_as_often_as_asked(make: Make) -> None:
    canaries = CanaryInjection(num_canaries=3, repetitions=5)
    planted, clean = make(canaries), make()
    sentences = [canary.sentence for canary in canaries.canaries()]
    training = documents(planted, "train")
    assert training[:-15] == documents(clean, "train")
    assert Counter(training[-15:]) == dict.fromkeys(sentences, 5)
    assert documents(planted, "validation") == documents(clean, "validation")
    # The tokenizer is that of the clean twin, so that the two differ in nothing else.
    assert planted.tokenizer.fingerprint() == clean.tokenizer.fingerprint()
    assert planted.store("train").num_bytes - clean.store("train").num_bytes == 5 * sum(map(len, sentences))


def test_other_canaries_are_another_store_and_the_same_are_found_again(
    make: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = {
        make(canaries).store("train").path
        for canaries in (
            None,
            CanaryInjection(),
            CanaryInjection(seed=1),
            CanaryInjection(repetitions=2),
            CanaryInjection(format="{owner} keeps {secret}."),
        )
    }
    assert len(paths) == 5
    capsys.readouterr()
    assert make(CanaryInjection(seed=1)).store("train").path in paths
    assert "encoded" not in capsys.readouterr().err


def test_a_position_in_the_clean_text_is_none_in_the_planted(make: Make) -> None:
    planted = make(CanaryInjection())
    with pytest.raises(CheckpointError, match="other training data"):
        planted.load_state_dict(make().state_dict())


def test_record_tells_everything_that_measuring_needs(make: Make) -> None:
    canaries = CanaryInjection(num_canaries=2, num_digits=3, repetitions=7)
    record = make(canaries).summary()["canaries"]
    assert record["num_digits"] == 3
    assert record["repetitions"] == 7
    sentences = [
        entry["prompt"] + entry["continuation"].replace("{secret}", entry["secret"]) + entry["ending"]
        for entry in record["planted"]
    ]
    assert sentences == [canary.sentence for canary in canaries.canaries()]
    assert "canaries" not in make().summary()


def test_it_travels_as_a_component() -> None:
    canaries = CanaryInjection(num_canaries=2, format="{owner}: {secret}")
    assert canaries.to_dict()["class_path"] == "insight.data.CanaryInjection"
    assert component_from_dict(canaries.to_dict()) == canaries


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"num_canaries": 0}, "num_canaries=0"),
        ({"num_canaries": NUM_OWNERS + 1}, f"num_canaries={NUM_OWNERS + 1}"),
        ({"num_canaries": 11, "num_digits": 1}, "num_canaries=11"),
        ({"repetitions": 0}, "repetitions=0"),
        ({"repetitions": 10**9}, "repetitions=1000000000"),
        ({"num_digits": 0}, "num_digits=0"),
        ({"num_digits": 5}, "num_digits=5"),
        ({"format": "no places"}, "no places"),
        ({"format": "{owner} {secret} {secret}"}, "once"),
        ({"format": "{secret} belongs to {owner}"}, "before"),
        ({"format": "{owner} 1{secret}"}, "digit touches"),
    ],
)
def test_what_cannot_work_is_refused(options: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(named)) as caught:
        CanaryInjection(**options)
    assert caught.value.remedy
