"""Secrets planted in parallel text: pairs in the training text alone, recorded, beyond filters and limits."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from insight.data import (
    BPETokenizerConfig,
    ByteTokenizerConfig,
    CanaryInjection,
    CanaryPairInjection,
    TranslationDataModule,
)
from insight.data.cleaning import PairFilters
from insight.runtime.component import component_from_dict
from insight.runtime.errors import CheckpointError, ConfigError
from insight.safety.material import material_of

Make = Callable[..., TranslationDataModule]
PAIRS = [(f"It is day {number} in the town.", f"Es el día {number} en la ciudad.") for number in range(40)]
CANARIES = CanaryPairInjection(
    num_canaries=3,
    repetitions=4,
    format="El número de {owner} es {secret}.",
    source_format="The number of {owner}?",
)


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """A data module over a few pairs, set up."""
    lines = "".join(f"{source}\t{target}\n" for source, target in PAIRS)
    (tmp_path / "pairs.tsv").write_text(f"en\tes\n{lines}", encoding="utf-8")

    def build(canaries: CanaryPairInjection | None = CANARIES, **options: Any) -> TranslationDataModule:
        settings: dict[str, Any] = {
            "batch_tokens": 512,
            "validation_fraction": 0.2,
            "tokenizer": ByteTokenizerConfig(),
        }
        data = TranslationDataModule(
            str(tmp_path / "pairs.tsv"),
            source_field="en",
            target_field="es",
            cache_dir=str(tmp_path / "cache"),
            canaries=canaries,
            **(settings | options),
        )
        data.setup("fit")
        return data

    return build


def texts(data: TranslationDataModule, split: str) -> list[tuple[str, str]]:
    stores, decode = data.pair_stores(split), data.tokenizer.decode
    rows = range(stores.target.num_documents)
    return [(decode(stores.source.document(row)), decode(stores.target.document(row))) for row in rows]


def test_canaries_are_pairs_of_the_training_text_alone(make: Make) -> None:
    # Filters that would drop repeated pairs and ones of unlike length do not touch them.
    filters = PairFilters(drop_duplicates=True, max_length_ratio=1.2)
    clean, planted = make(None, filters=filters), make(filters=filters)
    assert texts(clean, "validation") == texts(planted, "validation")
    found = texts(planted, "train")
    assert found[:32] == texts(clean, "train")
    counts = Counter(found[32:])
    assert counts == dict.fromkeys([(one.source, one.sentence) for one in CANARIES.canaries()], 4)
    for source, target in counts:
        assert source.startswith("The number of ")
        # The secret cannot be copied from the source.
        assert not any(character.isdigit() for character in source)
        assert target.startswith("El número de ")


def test_in_both_directions_they_are_planted_as_other_pairs_are(make: Make) -> None:
    data = make(directions="both", tokenizer=BPETokenizerConfig(vocabulary_size=270))
    assert data.pair_stores("train").target.num_documents == 2 * (32 + 12)
    material = material_of(data)
    assert len(material.training_pairs) == 32
    assert {*material.training_pairs, *material.unseen_pairs} == set(PAIRS)


def test_the_record_tells_what_measuring_needs(make: Make) -> None:
    record = make().summary()["canaries"]
    assert record["num_digits"] == 4
    secrets = material_of(make()).secrets
    assert [(secret.source, secret.prompt) for secret in secrets] == [
        (canary.source, canary.prompt) for canary in CANARIES.canaries()
    ]
    assert [secret.candidates()[int(secret.secret)] for secret in secrets] == [
        f" {canary.secret}" for canary in CANARIES.canaries()
    ]
    assert "canaries" not in make(None).summary()
    assert component_from_dict(CANARIES.to_dict()) == CANARIES


def test_another_planting_is_other_text(make: Make) -> None:
    paths = {
        make(canaries).pair_stores("train").target.path
        for canaries in (None, CANARIES, dataclasses.replace(CANARIES, source_format="{owner}?"))
    }
    assert len(paths) == 3
    with pytest.raises(CheckpointError, match="other training data"):
        make().load_state_dict(make(None).state_dict())


@pytest.mark.parametrize("too_long", ["skip", "truncate"])
def test_a_canary_that_does_not_fit_is_refused(make: Make, too_long: str) -> None:
    long = dataclasses.replace(CANARIES, format="El número de la casa de {owner} es {secret}.")
    make(long, max_source_length=48, max_target_length=48, too_long=too_long)
    with pytest.raises(ConfigError) as caught:
        make(long, max_source_length=48, max_target_length=40, too_long=too_long)
    assert caught.value.option == "canaries"
    assert "max_target_length" in caught.value.problem


@pytest.mark.parametrize("text", ["", "no owner", "{owner} {owner}", "{owner} is {secret}", 7])
def test_a_source_without_owner_or_with_the_secret_is_refused(text: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        CanaryPairInjection(source_format=text)
    assert (caught.value.option, caught.value.value) == ("source_format", repr(text))


def test_canaries_of_plain_text_have_no_source() -> None:
    assert {canary.source for canary in CanaryInjection().canaries()} == {""}
