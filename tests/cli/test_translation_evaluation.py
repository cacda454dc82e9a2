"""The test of a translation run: its scores, its files, its report, and the comparison of two runs."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from command_line import run_insight
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import insight
from insight.runtime.errors import DataError
from insight.runtime.json_files import read_object, read_records, to_line
from insight.training.translation_metrics import score_translations

pytestmark = pytest.mark.slow

WORDS = {"one": "uno", "two": "dos", "three": "tres", "four": "cuatro", "five": "cinco", "six": "seis"}
CONFIG = """\
seed: 3
run: {name: counting, num_threads: 1}
data:
  class_path: TranslationDataModule
  init_args:
    train_files: train.tsv
    validation_files: test.tsv
    test_files: test.tsv
    source_field: en
    target_field: es
    tokenizer: {class_path: BPETokenizerConfig, init_args: {vocabulary_size: 290}}
    max_source_length: 24
    max_target_length: 24
    batch_tokens: 2000
    cache_dir: cache
model:
  class_path: TranslationModule
  init_args:
    network:
      share_embeddings: true
      encoder: &stack
        hidden_size: 32
        num_layers: 1
        max_sequence_length: 32
        attention: {class_path: GroupedQueryAttention, init_args: {num_heads: 2}}
      decoder: {<<: *stack, tie_embeddings: true}
      cross_attention:
        class_path: GroupedQueryAttention
        init_args: {num_heads: 2, position: {class_path: NoPosition}}
    optimizer: {class_path: MuonAdamW, init_args: {learning_rate: 0.02, adam_learning_rate: 0.01}}
    translate_in_validation: 8
trainer:
  max_steps: 60
  val_check_interval: 20
  check_val_every_n_epoch: null
  precision: 32-true
  enable_progress_bar: false
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The working folder of a run that is trained and tested; ``fit.err`` is what it said."""
    folder, before = tmp_path_factory.mktemp("counting"), Path.cwd()
    chosen = [words for length in (1, 2, 3, 4) for words in itertools.product(WORDS, repeat=length)]
    for name, part in (("train", chosen[::8]), ("test", chosen[1::40])):
        rows = [f"{' '.join(words)}\t{' '.join(WORDS[word] for word in words)}\n" for words in part]
        (folder / f"{name}.tsv").write_text("en\tes\n" + "".join(rows), encoding="utf-8")
    (folder / "config.yaml").write_text(CONFIG, encoding="utf-8")
    os.chdir(folder)
    try:
        outcome = run_insight("fit", "--config", "config.yaml")
        assert outcome.code == 0, outcome.err
        Path("fit.err").write_text(outcome.err, encoding="utf-8")
        yield folder
    finally:
        os.chdir(before)


def test_a_run_keeps_its_translations_and_their_scores(folder: Path) -> None:
    run = folder / "runs" / "counting" / "1"
    sentences = read_records(run / "translations" / "test.jsonl")
    pairs = [line.split("\t") for line in (folder / "test.tsv").read_text().splitlines()[1:]]
    assert [[line["source"], line["reference"]] for line in sentences] == pairs
    summary = read_object(run / "translations" / "test.json")
    expected = score_translations([one["translation"] for one in sentences], [pair[1] for pair in pairs])
    kept = read_object(run / "summary.json")["metrics"]
    for name, score in expected.items():
        found = summary["scores"][name]
        assert found["value"] == pytest.approx(score.value)
        assert found["interval"] == pytest.approx([score.low, score.high])
        assert found["signature"] == score.signature
        assert kept[f"test/{name}"]["value"] == pytest.approx(score.value, rel=1e-6)
        assert kept[f"test/{name}"]["interval"] == pytest.approx([score.low, score.high])
        assert kept[f"test/{name}"]["n"] == len(pairs)
    for buckets in summary["buckets"].values():
        assert sum(bucket["num_sentences"] for bucket in buckets) == len(pairs)
    assert "beam:" in summary["decoding"] or "greedy" in summary["decoding"]
    assert 0 < len(summary["alignments"]) <= 6
    for alignment in summary["alignments"]:
        assert sentences[alignment["sentence"]]["translation"].split() == alignment["target"]
    assert all(one["tokens"] > 0 and one["source_tokens"] > 1 for one in sentences)


def test_tensorboard_has_the_scores_and_some_sentences(folder: Path) -> None:
    run = folder / "runs" / "counting" / "1"
    events = EventAccumulator(str(run))
    events.Reload()
    tags = events.Tags()
    for name in ("bleu", "chrf", "ter"):
        assert {f"test/{name}", f"validation/{name}"} <= set(tags["scalars"])
    [shown] = events.Tensors("translations/test/text_summary")
    first = read_records(run / "translations" / "test.jsonl")[0]
    text = shown.tensor_proto.string_val[0].decode()
    assert first["source"] in text
    assert f"({first['reference']})" in text


def test_the_report_has_the_section(folder: Path) -> None:
    page = (folder / "runs" / "counting" / "1" / "report.html").read_text(encoding="utf-8")
    for expected in (
        'id="translation"',
        "39 sentences were translated",
        "The 10 best sentences",
        'class="alignment"',
    ):
        assert expected in page


def test_the_table_is_printed_once(folder: Path) -> None:
    said = (folder / "fit.err").read_text(encoding="utf-8")
    for start in ("test: 39 sentences", "BLEU  ", "chrF++  ", "TER  ", "decoding: "):
        assert said.count(f"insight: {start}") == 1, said


def test_testing_again_gives_the_same(folder: Path) -> None:
    """Also that it does not differ from itself, and differs from what its references are."""
    run = folder / "runs" / "counting" / "1"
    before = (run / "translations" / "test.jsonl").read_bytes()
    sentences = read_records(run / "translations" / "test.jsonl")
    perfect = [{**one, "translation": one["reference"]} for one in sentences]
    Path("perfect.jsonl").write_text("".join(map(to_line, perfect)), encoding="utf-8")
    outcome = run_insight("test", "--checkpoint", "counting", "--against", "perfect.jsonl", "--json")
    assert outcome.code == 0, outcome.err
    metrics: dict[str, Any] = json.loads(outcome.out)
    kept = read_object(run / "summary.json")["metrics"]
    assert metrics["test/chrf"] == pytest.approx(kept["test/chrf"]["value"])
    assert (run / "translations" / "test.jsonl").read_bytes() == before
    assert metrics["against"]["chrf"]["first"] == pytest.approx(100)
    assert metrics["against"]["chrf"]["other"] == pytest.approx(metrics["test/chrf"], rel=1e-6)
    assert metrics["against"]["chrf"]["p_value"] < 0.01
    found = insight.compare_translations("perfect.jsonl", "counting/1")
    assert {name: asdict(one) for name, one in found.items()} == metrics["against"]
    assert insight.compare_translations("counting", run)["bleu"].p_value == 1.0


def test_runs_that_cannot_be_compared_are_refused_before_any_work(folder: Path) -> None:
    run = folder / "runs" / "counting" / "1"
    sentences = read_records(run / "translations" / "test.jsonl")
    changed = [*sentences[:4], {**sentences[4], "reference": "otro"}, *sentences[5:]]
    Path("changed.jsonl").write_text("".join(map(to_line, changed)), encoding="utf-8")
    Path("shorter.jsonl").write_text("".join(map(to_line, sentences[:9])), encoding="utf-8")
    for against, words in (
        ("changed.jsonl", "sentence 5 differs"),
        (
            "shorter.jsonl",
            "was tested on 9 sentences, runs/counting/1/checkpoints/best.ckpt on 39",
        ),
        ("nowhere", "holds no translations of a test"),
    ):
        outcome = run_insight("test", "--checkpoint", "counting", "--against", against)
        assert outcome.code == 2
        assert f"--against={against}" in outcome.error_line or f"--against='{against}'" in outcome.error_line
        assert words in outcome.error_line
        assert outcome.out == ""
    with pytest.raises(DataError, match="sentence 5 differs"):
        insight.compare_translations("changed.jsonl", "counting")
