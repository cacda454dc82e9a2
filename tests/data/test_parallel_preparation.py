"""Pairs of sentences become token ids in their order: filters, limits, parts set aside, both directions."""

from __future__ import annotations

import json
import os
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from warm_processes import start_warm

from insight.api.cache import pin_stores
from insight.data import (
    BPETokenizerConfig,
    ByteTokenizer,
    ByteTokenizerConfig,
    TranslationDataModule,
    pair_preparation,
)
from insight.data.cleaning import PairFilters
from insight.data.pair_preparation import MOST_SET_ASIDE, PairPreparation
from insight.data.sources.parallel import Pair
from insight.data.store import TokenStore
from insight.data.store import cache as store_cache
from insight.runtime.errors import ConfigError, DataError

WORDS = ("one two three four five six seven eight", "uno dos tres cuatro cinco seis siete ocho")


def sentences(number: int, seed: int = 0) -> list[Pair]:
    """Pairs of a few words, of which the target has the words of the source."""
    draw, english, spanish = random.Random(seed), WORDS[0].split(), WORDS[1].split()
    chosen = [[draw.randrange(8) for _ in range(draw.randrange(2, 9))] for _ in range(number)]
    return [
        (
            f"{index} " + " ".join(english[each] for each in of),
            f"{index} " + " ".join(spanish[each] for each in of),
        )
        for index, of in enumerate(chosen)
    ]


def write(path: Path, pairs: list[Pair]) -> str:
    path.write_text("".join(json.dumps({"en": en, "es": es}) + "\n" for en, es in pairs), encoding="utf-8")
    return str(path)


@pytest.fixture
def module(tmp_path: Path) -> Callable[..., TranslationDataModule]:
    """A data module of byte tokens, whose files are written from lists of pairs."""

    def make(train: list[Pair], **options: Any) -> TranslationDataModule:
        for name, value in options.items():
            if name.endswith("_files") and isinstance(value, list):
                options[name] = write(tmp_path / f"{name}.jsonl", value)
        defaults = {
            "source_field": "en",
            "target_field": "es",
            "tokenizer": ByteTokenizerConfig(),
            "cache_dir": str(tmp_path / "cache"),
            "validation_fraction": 0.0,
            "batch_tokens": 512,
        }
        return TranslationDataModule(write(tmp_path / "train.jsonl", train), **{**defaults, **options})

    return make


Module = Callable[..., TranslationDataModule]


def texts(store: TokenStore) -> list[str]:
    return [ByteTokenizer().decode(store.document(index)) for index in range(store.num_documents)]


def stored(data: TranslationDataModule, split: str) -> list[Pair]:
    stores = data.preparation.stores(split)
    return list(zip(texts(stores.source), texts(stores.target), strict=True))


# ---------------------------------------------------------------------- order and whole


def test_all_splits_are_stored_in_order(module: Module) -> None:
    train, held_out, test = sentences(50), sentences(9, 1), sentences(12, 2)
    data = module(train, validation_files=held_out, test_files=test, predict_files=test[:3])
    data.setup()
    assert stored(data, "train") == train
    assert stored(data, "validation") == held_out
    assert stored(data, "test") == test
    assert data.preparation.sentences("test") == ([en for en, _ in test], [es for _, es in test])
    assert list(data.preparation.pairs("predict")) == test[:3]


def test_a_second_module_finds_what_the_first_made(
    module: Module, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"tokenizer": BPETokenizerConfig(vocabulary_size=300), "test_files": sentences(5, 1)}
    first = module(sentences(50), **options)
    first.setup("fit")
    assert "trained a tokenizer" in capsys.readouterr().err
    second = module(sentences(50), **options)
    second.setup("fit")
    said = capsys.readouterr().err
    assert "trained" not in said
    assert "encoded" not in said
    assert "train: all 50 pairs are kept" in said
    assert second.preparation.sentences("test") == first.preparation.sentences("test")
    assert second.tokenizer.fingerprint() == first.tokenizer.fingerprint()
    assert second.store("train").path == first.store("train").path


def test_the_key_names_all_sides_together(module: Module, tmp_path: Path) -> None:
    data = module(sentences(20), test_files=sentences(5, 1))
    data.setup("fit")
    keys = {split: data.pair_stores(split).source.path.name.partition("-")[0] for split in ("train", "test")}
    pinned = pin_stores([keys["test"][:12]], tmp_path / "cache")
    assert sorted(pinned) == [f"{keys['test']}-{side}" for side in ("source", "target", "text")]
    assert len(pin_stores(list(keys.values()), tmp_path / "cache")) == 5
    with pytest.raises(ConfigError):
        pin_stores(["x"], tmp_path / "cache")


def test_a_missing_side_is_built_again_with_the_other(module: Module) -> None:
    data = module(sentences(20))
    data.setup("fit")
    stores = data.pair_stores("train")
    before = texts(stores.source), texts(stores.target)
    target = stores.target.path
    ids = target / "00000.bin"
    damaged = bytearray(ids.read_bytes())
    damaged[0] ^= 1
    ids.unlink()
    ids.write_bytes(damaged)
    again = module(sentences(20)).preparation.stores("train")
    assert (texts(again.source), texts(again.target)) == before


@pytest.mark.parametrize(
    "changed",
    [
        {"filters": PairFilters(max_words=6)},
        {"max_source_length": 64},
        {"too_long": "truncate"},
        {"vocabulary": "separate"},
        {"directions": "both"},
        {"validation_fraction": 0.2},
        {"invalid_text": "skip"},
        {"source_field": "es", "target_field": "en"},
    ],
)
def test_whatever_decides_the_pairs_is_part_of_the_key(module: Module, changed: dict[str, Any]) -> None:
    options = {"tokenizer": BPETokenizerConfig(vocabulary_size=270)}
    paths = {
        module(sentences(50), **options, **more).preparation.stores("train").source.path
        for more in ({}, changed)
    }
    assert len(paths) == 2


def test_joint_and_separate_vocabularies(module: Module) -> None:
    joint, separate = (
        module(sentences(80), tokenizer=BPETokenizerConfig(vocabulary_size=280), vocabulary=vocabulary)
        for vocabulary in ("joint", "separate")
    )
    for data in (joint, separate):
        data.setup("fit")
        stores = data.pair_stores("train")
        decoded = [
            (
                data.source_tokenizer.decode(stores.source.document(row)),
                data.tokenizer.decode(stores.target.document(row)),
            )
            for row in range(80)
        ]
        assert decoded == sentences(80)
    assert joint.source_tokenizer is joint.tokenizer
    assert separate.source_tokenizer.fingerprint() != separate.tokenizer.fingerprint()
    # Each vocabulary has words of its own language only, the joint one both.
    assert len(separate.source_tokenizer.encode(WORDS[0])) < len(separate.tokenizer.encode(WORDS[0]))
    assert len(separate.tokenizer.encode(WORDS[1])) < len(separate.source_tokenizer.encode(WORDS[1]))


def test_both_directions_have_a_tag_each_in_training_only(module: Module) -> None:
    tokenizer = BPETokenizerConfig(vocabulary_size=300)
    data = module(sentences(30), tokenizer=tokenizer, directions="both", test_files=sentences(4, 1))
    data.setup("fit")
    stores, decode = data.pair_stores("train"), data.tokenizer.decode
    tags = {data.preparation.tag_id("es"): 0, data.preparation.tag_id("en"): 0}
    found = []
    for row in range(stores.source.num_documents):
        source, target = stores.source.document(row), stores.target.document(row)
        tags[int(source[0])] += 1
        pair = decode(source[1:]), decode(target)
        found.append(pair if source[0] == data.preparation.tag_id("es") else pair[::-1])
    assert tags == dict.fromkeys(tags, 30)
    assert sorted(found) == sorted(sentences(30) * 2)
    measured = data.pair_stores("test")
    assert measured.source.num_documents == 4
    assert all(measured.source.document(row)[0] == data.preparation.tag_id("es") for row in range(4))
    with pytest.raises(ConfigError) as error:
        data.preparation.tag_id("de")
    assert "use es or en" in str(error.value) or "use en or es" in str(error.value)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"directions": "both"}, "tokenizer=ByteTokenizerConfig"),
        ({"directions": "both", "vocabulary": "separate"}, "vocabulary=separate"),
        ({"target_field": "en"}, "target_field=en"),
        ({"source_field": ""}, "source_field="),
        ({"max_source_length": 1}, "max_source_length=1"),
        ({"batch_tokens": 255}, "batch_tokens=255: must be a whole number, at least 256"),
        ({"validation_batch_tokens": 20}, "validation_batch_tokens=20"),
        ({"max_test_overlap": 1.5}, "max_test_overlap=1.5"),
        ({"validation_fraction": 1.0}, "validation_fraction=1.0"),
        ({"invalid_text": "replce"}, "did you mean 'replace'?"),
        ({"num_workers": -1}, "num_workers=-1"),
        ({"seed": 0.5}, "seed=0.5"),
        ({"pool_size": 0}, "pool_size=0"),
    ],
)
def test_values_that_cannot_work(module: Module, options: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError) as error:
        module(sentences(3), **options)
    assert named in str(error.value)


# ---------------------------------------------------------------------- what is left out


def test_empty_sides_are_left_out_and_counted(module: Module, capsys: pytest.CaptureFixture[str]) -> None:
    pairs = [("one", "uno"), ("", "dos"), ("three", " \u00a0"), ("four", "cuatro")]
    data = module(pairs, test_files=pairs)
    data.setup("fit")
    for split in ("train", "test"):
        assert stored(data, split) == [pairs[0], pairs[3]]
        assert (
            f"{split}: 2 of 4 pairs are kept; left out: 2 with an empty side" in capsys.readouterr().err
            or split
        )
    assert data.summary()["splits"]["test"]["division"].endswith("2 with an empty side")


@pytest.mark.parametrize("too_long", ["skip", "truncate"])
def test_sentences_longer_than_the_limit(module: Module, too_long: str) -> None:
    limit = 16  # bytes with the end-of-text id
    pairs = [("a" * 15, "b" * 15), ("a" * 16, "b"), ("a", "b" * 400), ("c", "d")]
    lengths = {"max_source_length": limit, "max_target_length": limit, "batch_tokens": 2 * limit}
    data = module(pairs, too_long=too_long, test_files=pairs, **lengths)
    data.setup("fit")
    cut = [(en[:15], es[:15]) for en, es in pairs]
    assert stored(data, "test") == cut
    assert data.preparation.sentences("test")[1] == [es for _, es in pairs], "references are whole"
    assert stored(data, "train") == ([pairs[0], pairs[3]] if too_long == "skip" else cut)
    told = data.summary()["splits"]
    assert "2 are cut to the limits of length" in told["test"]["division"]
    left_out = "2 longer than max_source_length or max_target_length"
    assert (left_out if too_long == "skip" else "2 are cut") in told["train"]["division"]
    # However long the sentences were, batches stay within the budget.
    for batch in data.train_dataloader():
        assert batch.source_ids.numel() + batch.targets.numel() <= 2 * limit


def test_pairs_too_long_in_either_direction_are_skipped_in_both(module: Module) -> None:
    pairs = [("x " * 3, "y " * 40), ("one two", "uno dos"), ("three", "tres")]
    options: dict[str, Any] = {"tokenizer": BPETokenizerConfig(vocabulary_size=258 + 3), "directions": "both"}
    data = module(pairs, max_source_length=20, max_target_length=100, **options)
    data.setup("fit")
    assert data.pair_stores("train").source.num_documents == 4


def test_nothing_left_is_told_with_the_reasons(module: Module) -> None:
    cases: list[tuple[list[Pair], dict[str, Any], str]] = [
        ([("", "uno"), ("two", "")], {}, "0 of 2 pairs are kept; left out: 2 with an empty side"),
        ([("one", "uno")], {"max_source_length": 2}, "1 longer than max_source_length"),
        ([("one", "uno")], {"validation_fraction": 0.5}, "too few to set some aside"),
        (sentences(3), {"filters": PairFilters(max_words=1)}, "3 longer than 1 words"),
    ]
    for pairs, options, named in cases:
        with pytest.raises(DataError) as error:
            module(pairs, **options).setup("fit")
        assert str(error.value).startswith("train_files: ")
        assert named in str(error.value)
        assert error.value.exit_code == 2


def test_a_file_without_a_pair(tmp_path: Path) -> None:
    (tmp_path / "train.tsv").write_text("en\tes\n")
    data = TranslationDataModule(
        str(tmp_path / "train.tsv"), source_field="en", target_field="es", cache_dir=str(tmp_path)
    )
    with pytest.raises(DataError) as error:
        data.setup("fit")
    assert "train_files: there are no pairs" in str(error.value)


def test_files_of_different_length_leave_no_store(tmp_path: Path) -> None:
    (tmp_path / "a.en").write_text("one\ntwo\n")
    (tmp_path / "a.es").write_text("uno\ndos\ntres\n")
    files: dict[str, str | list[str]] = {"source": str(tmp_path / "a.en"), "target": str(tmp_path / "a.es")}
    cache = tmp_path / "cache"
    data = TranslationDataModule(files, tokenizer=ByteTokenizerConfig(), cache_dir=str(cache))
    with pytest.raises(DataError) as error:
        data.setup("fit")
    assert "line 3 has no translation" in str(error.value)
    assert not [path for path in cache.rglob("*") if path.suffix in (".bin", ".tmp")]


def test_a_file_that_changes_while_it_is_read(module: Module, monkeypatch: pytest.MonkeyPatch) -> None:
    data = module(sentences(5))
    name = data.preparation.sources("train")[0].name
    encode = data.preparation._encoded

    def change_and_encode(*arguments: Any) -> Any:
        write(Path(name), sentences(6))
        os.utime(name, ns=(1, 1))
        return encode(*arguments)

    monkeypatch.setattr(data.preparation, "_encoded", change_and_encode)
    with pytest.raises(DataError) as error:
        data.setup("fit")
    assert "changed while it was read" in str(error.value)


# ---------------------------------------------------------------------- the same bytes


def prepare(folder: Path, cache: Path, kind: str = "", number: int = 0) -> None:
    """Encode the pairs in ``folder``; the process ends at once at this chunk or store that it publishes."""
    encode, publish = PairPreparation._encoded, store_cache.publish_folder
    left = {kind: number}

    def count(what: str) -> None:
        if what in left:
            left[what] -= 1
            if not left[what]:
                os.kill(os.getpid(), signal.SIGKILL)

    def encode_and_count(*arguments: Any) -> Any:
        count("chunks")
        return encode(*arguments)

    def publish_and_count(*arguments: Any) -> Any:
        done = publish(*arguments)
        count("stores")
        return done

    data = TranslationDataModule(
        str(folder / "train.jsonl"),
        str(folder / "train.jsonl"),
        tokenizer=BPETokenizerConfig(300),
        source_field="en",
        target_field="es",
        directions="both",
        cache_dir=str(cache),
    )
    with (
        patch.object(PairPreparation, "_encoded", encode_and_count),
        patch.object(store_cache, "publish_folder", publish_and_count),
    ):
        data.setup("fit")


def stores_in(cache: Path) -> dict[str, bytes]:
    """Every file of every store, and what a killed process has left."""
    there = [path for path in (cache / "stores").rglob("*") if path.is_file() and path.suffix != ".lock"]
    return {str(path.relative_to(cache)): path.read_bytes() for path in there}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, bytes]]:
    folder = tmp_path_factory.mktemp("undisturbed")
    write(folder / "train.jsonl", sentences(60))
    prepare(folder, folder / "cache")
    return folder, stores_in(folder / "cache")


@pytest.mark.parametrize("pairs_at_once", [1, 7, 59, 60])
def test_chunks_do_not_change_the_stores(
    undisturbed: tuple[Path, dict[str, bytes]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    pairs_at_once: int,
) -> None:
    folder, expected = undisturbed
    monkeypatch.setattr(pair_preparation, "_PAIRS_AT_ONCE", pairs_at_once)
    prepare(folder, tmp_path)
    assert len(expected) > 10
    assert stores_in(tmp_path) == expected


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "number", "fault"),
    [
        ("chunks", 1, False),
        ("chunks", 2, False),
        ("stores", 1, False),  # between the two sides of the training pairs
        ("stores", 4, False),
        ("stores", 1, True),
    ],
)
def test_a_killed_preparation_is_made_again_with_the_same_bytes(
    undisturbed: tuple[Path, dict[str, bytes]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    number: int,
    fault: bool,
) -> None:
    """With the planted fault, what a killed process leaves behind stays."""
    folder, expected = undisturbed
    process = start_warm(prepare, folder, tmp_path, kind, number)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert stores_in(tmp_path).keys() != expected.keys()
    if fault:
        monkeypatch.setattr("insight.data.store.cache.shutil.rmtree", lambda *_, **__: None)
    prepare(folder, tmp_path)
    assert (stores_in(tmp_path) == expected) is not fault


# ---------------------------------------------------------------------- set aside


@settings(deadline=None, max_examples=15)
@given(st.integers(5, 200), st.floats(0.001, 0.6), st.integers(0, 5))
def test_the_part_set_aside_is_small_and_shares_no_pair(
    tmp_path_factory: pytest.TempPathFactory, number: int, fraction: float, seed: int
) -> None:
    folder = tmp_path_factory.mktemp("aside")
    pairs = sentences(number) + sentences(number)[: number // 2]
    data = TranslationDataModule(
        write(folder / "train.jsonl", pairs),
        source_field="en",
        target_field="es",
        tokenizer=ByteTokenizerConfig(),
        validation_fraction=fraction,
        seed=seed,
        cache_dir=str(folder),
    )
    train, held_out = stored(data, "train"), stored(data, "validation")
    assert sorted(train + held_out) == sorted(pairs)
    assert not set(train) & set(held_out), "copies of a pair are on one side"
    wanted = max(1, round(len(pairs) * fraction))
    assert wanted <= len(held_out) <= wanted + 1


def test_at_most_some_hundred_pairs_are_set_aside_and_it_is_said(
    module: Module, capsys: pytest.CaptureFixture[str]
) -> None:
    data = module(sentences(3000), validation_fraction=0.5)
    data.setup("fit")
    assert len(data.preparation.sentences("validation")[0]) == MOST_SET_ASIDE
    said = capsys.readouterr().err
    assert "no validation_files, so 50% of the training pairs, at most 500, are set aside" in said
    assert "2,500 of 3,000 pairs are kept; left out: 500 set aside for validation" in said
    assert data.preparation.sentences("validation") != module(
        sentences(3000), validation_fraction=0.5, seed=1
    ).preparation.sentences("validation")


def test_without_validation_files_and_fraction_there_is_no_validation(module: Module) -> None:
    data = module(sentences(10))
    data.setup("fit")
    assert not data.has("validation")
    assert data.val_dataloader() == []


# ---------------------------------------------------------------------- overlap


def test_pairs_that_recur_in_the_training_text_are_left_out_of_the_test(
    module: Module, capsys: pytest.CaptureFixture[str]
) -> None:
    train = [("In the beginning was the word and it was good", "En el principio"), ("a b c d e f", "x y z")]
    test = [
        ("IN THE BEGINNING, was the word!", "otra cosa que nadie dijo antes"),  # the source recurs
        ("something that nobody said before now", "en el  principio"),  # a short target recurs as a whole
        ("a b c d was new here today", "nada"),  # one of five 4-grams recurs
        ("quite new", "en"),
    ]
    data = module(train, validation_files=sentences(3), test_files=test, max_test_overlap=0.5)
    data.setup("fit")
    assert list(data.preparation.pairs("test")) == test[2:]
    assert stored(data, "test") == test[2:]
    said = capsys.readouterr().err
    assert (
        "test: 2 of 4 pairs are kept; left out: 2 that recur nearly word for word in the training text"
        in said
    )
    everything = module(train, validation_files=sentences(3), test_files=test)
    assert len(list(everything.preparation.pairs("test"))) == 4
    strict = module(train, validation_files=sentences(3), test_files=test, max_test_overlap=0.1)
    assert list(strict.preparation.pairs("test")) == test[3:]


def test_pairs_set_aside_are_compared_with_the_rest(module: Module) -> None:
    draw = random.Random(0)
    lines = [" ".join(f"w{draw.randrange(900)}" for _ in range(7)) for _ in range(60)]
    # A third of the lines occurs once more with another end.
    pairs = [(line, line.upper()) for line in [*lines, *(f"{line} !" for line in lines[:20])]]
    data = module(pairs, validation_fraction=0.3, max_test_overlap=0.5)
    train, held_out = ({en.strip(" !") for en, _ in stored(data, split)} for split in ("train", "validation"))
    assert 5 < len(held_out) < 24
    assert not train & held_out
    flattering = module(pairs, validation_fraction=0.3)
    assert train & {en.strip(" !") for en, _ in stored(flattering, "validation")}


# ---------------------------------------------------------------------- warnings

ENGLISH = [
    "The house by the river was white.",
    "They went out into the night, and it was cold.",
    "What have you done?",
]
SPANISH = ["La casa junto al río era blanca.", "Salieron a la noche, y hacía frío.", "¿Qué has hecho?"]


def test_exchanged_languages_are_noticed(module: Module, capsys: pytest.CaptureFixture[str]) -> None:
    pairs = list(zip(ENGLISH, SPANISH, strict=True))
    module(pairs, validation_files=pairs[:2], test_files=[pair[::-1] for pair in pairs]).setup("fit")
    said = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert len(said) == 1
    assert "test_files.jsonl seem exchanged, beside" in said[0]
    module(pairs, validation_files=pairs[:2], test_files=pairs[1:]).setup("fit")
    assert "warning" not in capsys.readouterr().err


def test_a_training_file_with_exchanged_languages_is_noticed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = list(zip(ENGLISH, SPANISH, strict=True))
    files: list[str] = [
        write(tmp_path / "right.jsonl", pairs),
        write(tmp_path / "wrong.jsonl", [pair[::-1] for pair in pairs]),
    ]
    fields = {"source_field": "en", "target_field": "es", "cache_dir": str(tmp_path)}
    TranslationDataModule(files, tokenizer=ByteTokenizerConfig(), **fields).setup("fit")  # type: ignore[arg-type]
    assert f"the languages of {files[1]} seem exchanged" in capsys.readouterr().err


def test_the_bible_is_not_taken_for_exchanged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for fields, expected in ((("en", "es"), 0), (("es", "en"), 0)):
        data = TranslationDataModule(
            "corpus:kjv-rv1909-test",
            test_files="corpus:kjv-rv1909-validation",
            source_field=fields[0],
            target_field=fields[1],
            cache_dir=str(tmp_path),
        )
        data.preparation.warn_if_swapped()
        assert capsys.readouterr().err.count("exchanged") == expected


def test_equal_files_are_noticed(module: Module, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = write(tmp_path / "copy.jsonl", sentences(5))
    module(sentences(5), validation_files=copy).setup("fit")
    assert f"validation_files: {copy} is training text too, so its scores flatter" in capsys.readouterr().err
    files: list[str] = [copy, write(tmp_path / "again.jsonl", sentences(5))]
    fields = {"source_field": "en", "target_field": "es", "cache_dir": str(tmp_path)}
    twice = TranslationDataModule(files, tokenizer=ByteTokenizerConfig(), validation_fraction=0.0, **fields)  # type: ignore[arg-type]
    twice.setup("fit")
    assert "has the same content as" in capsys.readouterr().err
    assert stored(twice, "train") == sentences(5)
