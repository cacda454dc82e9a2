"""``insight translate``: one line in, one line out, whatever happens on the way."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from command_line import Outcome, run_insight
from real_processes import PYTHON_INSIGHT, started
from tiny_translation import WORDS, train_numbers

import insight
from insight.api.translate import TranslationOptions, translate_file
from insight.checkpoints import LoadedCheckpoint, LoadedTranslationModel
from insight.runtime import resumable_lines as resumable
from insight.runtime.errors import ConfigError, OutputError

pytestmark = pytest.mark.slow

LINES = ["one two", "", "three", "six five four", " ", "two two", "one", "five six one"]


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory, cache_folder: Path) -> Path:
    """A run of a model that translates in both directions."""
    return train_numbers(tmp_path_factory.mktemp("numbers"), 80, "both")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.txt").write_text("".join(f"{line}\n" for line in LINES), encoding="utf-8")
    return tmp_path


@pytest.fixture
def command(run_folder: Path, folder: Path) -> Iterator[object]:
    def run(*arguments: str) -> Outcome:
        return run_insight("translate", "--checkpoint", str(run_folder), *arguments)

    return run  # type: ignore[return-value]


@pytest.fixture(scope="module")
def alone(run_folder: Path) -> dict[str, str]:
    """The translation of each line, made alone."""
    return {line: insight.translate(run_folder, [line])[0].text for line in dict.fromkeys(LINES)}


def test_one_line_in_one_line_out(command, folder: Path, alone: dict[str, str]) -> None:
    outcome = command("in.txt")
    assert outcome.code == 0, outcome.err
    assert outcome.out.split("\n") == [*(alone[line] for line in LINES), ""]
    assert alone[""] == alone[" "] == ""
    assert len(set(alone.values())) > 4  # the model tells the sentences apart, so an exchange would show
    assert alone["one two"] == f"{WORDS['one']} {WORDS['two']}"
    assert "translated 8 lines" in outcome.err
    assert "2 blank" in outcome.err
    assert "decoding: beam:5|" in outcome.err


@pytest.mark.parametrize("batch_tokens", ["1", "9", "4096"])
def test_batches_change_nothing(command, alone: dict[str, str], batch_tokens: str) -> None:
    outcome = command("in.txt", "--batch_tokens", batch_tokens)
    assert outcome.out.split("\n")[:-1] == [alone[line] for line in LINES]


def test_only_a_newline_ends_a_line(command, folder: Path) -> None:
    text = "\ufeffone\u2028two\r\none\u0085two\n\x0bthree\x0cone\n\r\nsix"
    (folder / "odd.txt").write_bytes(text.encode("utf-8"))
    outcome = command("odd.txt", "--json")
    sources = [json.loads(line)["source"] for line in outcome.out.splitlines()]
    assert sources == ["one\u2028two", "one\u0085two", "\x0bthree\x0cone", "", "six"]
    assert len(command("odd.txt").out.split("\n")) == 6


def test_a_line_end_in_a_translation_stays_on_its_line() -> None:
    from insight.api.translate import _Counts
    from insight.generation.translator import Translation

    translation = Translation("uno\r\ndos\n\ntres", (), 3, False)
    assert _Counts(0).add(["one"], [translation], None) == ["uno dos tres"]


def test_n_best_as_json_lines(command) -> None:
    outcome = command("in.txt", "--n_best", "3", "--json")
    records = [json.loads(line) for line in outcome.out.splitlines()]
    assert [record["source"] for record in records] == LINES
    assert [record["line"] for record in records] == list(range(1, 9))
    for record in records:
        scores = [one["score"] for one in record["hypotheses"]]
        assert scores == sorted(scores, reverse=True)
        assert len(scores) == (3 if record["source"].strip() else 0)
        assert record["translation"] == (record["hypotheses"][0]["text"] if scores else "")
        assert record["decoding"].startswith("beam:5|score:sum/L^1")
    assert "n_best=3: needs JSON" in command("in.txt", "--n_best", "3").error_line


def test_directions_and_constraints(command) -> None:
    (Path("es.txt")).write_text("dos\ntres uno\n", encoding="utf-8")
    assert command("es.txt", "--to", "en").out.split("\n")[0] == "two"
    line = command("es.txt", "--to", "fr").error_line
    assert "to=fr: the model has no such language: use en or es" in line
    assert all(text.startswith("seis") for text in command("es.txt", "--prefix", "seis").out.splitlines())
    assert all("cinco" in text for text in command("es.txt", "--must_contain", "cinco").out.splitlines())
    found = command("es.txt", "--to", "en", "--must_not_contain", "two").out.splitlines()
    assert found[0] != "two"
    assert found[0].strip()


def test_search_options_reach_the_search(command) -> None:
    err = command("in.txt", "--num_beams", "2", "--length_rule", "gnmt", "--length_penalty", "0.5").err
    assert "decoding: beam:2|score:sum/((5+L)/6)^0.5|end:yes|stop:pruned:3|" in err
    assert "|coverage:0.2|" in command("in.txt", "--coverage_penalty", "0.2").err
    options = TranslationOptions(length_rule="marian", no_repeat_ngram=3, num_beams=1)
    assert "beam:1|score:(sum-0L)/L^1|" in options.settings().signature


def test_samples_follow_from_the_seed_and_the_sentence(command) -> None:
    def drawn(*arguments: str) -> list[str]:
        return command("in.txt", "--temperature", "3", *arguments).out.split("\n")

    first = drawn("--seed", "1")
    assert drawn("--seed", "1", "--batch_tokens", "1") == first  # whatever the neighbours
    assert drawn("--seed", "2") != first
    assert len(first) == len(LINES) + 1
    line = command("in.txt", "--temperature", "1", "--n_best", "7", "--json").out.split("\n")[0]
    assert len(json.loads(line)["hypotheses"]) == 7
    assert "samples:7|" in json.loads(line)["decoding"]
    assert "temperature=0.0: must be a number, above 0" in command("in.txt", "--temperature", "0").error_line
    assert "top_k=5: belongs to drawing at random" in command("in.txt", "--top_k", "5").error_line


def test_a_long_sentence_is_cut_and_counted(command) -> None:
    Path("long.txt").write_text("one " * 100 + "\ntwo\n", encoding="utf-8")
    outcome = command("long.txt")
    assert len(outcome.out.splitlines()) == 2
    assert "insight: line 1: cut after" in outcome.err
    assert "1 cut at the longest sentence" in outcome.err


def test_python(run_folder: Path, folder: Path, alone: dict[str, str]) -> None:
    translations = insight.translate(run_folder, LINES, num_beams=4, n_best=2)
    assert [len(one.hypotheses) for one in translations] == [2 if line.strip() else 0 for line in LINES]
    done = insight.translate_file(run_folder, "in.txt", "out.txt")
    assert (done.num_lines, done.num_blank, done.num_kept) == (8, 2, 0)
    assert Path("out.txt").read_text(encoding="utf-8").split("\n")[:-1] == [alone[line] for line in LINES]
    model = insight.load_model(insight.find_checkpoint(str(run_folder)))
    assert model.languages == ("en", "es")
    assert model.source_tokenizer.encode("one") == model.tokenizer.encode("one")
    with pytest.raises(ConfigError, match="unknown option 'beams'"):
        insight.translate(run_folder, LINES, beams=3)
    with pytest.raises(ConfigError, match="give a list"):
        insight.translate(run_folder, "one")


# ------------------------------------------------------------ interruptions


def _use_blocks_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("insight.api.translate._FIRST_BLOCK", 2)
    monkeypatch.setattr("insight.api.translate._LARGEST_BLOCK", 2)


def _interrupted(run_folder: Path, stop_after: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Translate in.txt to out.txt by blocks of two lines, and end before the given number of blocks."""
    blocks = 0

    def progress(done: int, total: int | None) -> None:
        nonlocal blocks
        blocks += 1
        if blocks == stop_after:
            raise KeyboardInterrupt

    _use_blocks_of_two(monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        translate_file(run_folder, "in.txt", "out.txt", progress=progress)


def test_an_interrupted_file_goes_on(
    run_folder: Path, command, folder: Path, alone: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _interrupted(run_folder, 2, monkeypatch)
    assert not Path("out.txt").exists()
    part = Path("out.txt.part")
    assert part.read_text(encoding="utf-8").count("\n") == 4
    with part.open("a", encoding="utf-8") as file:
        file.write("cin")  # of a line that was being written
    for other, words in (
        (("in.txt", "--num_beams", "2"), "--num_beams"),
        (("in.txt", "--to", "en"), "--to"),
        (("in.txt", "--json"), "--json"),
        (("other.txt",), "input"),
    ):
        Path("other.txt").write_text("one\n" * 8, encoding="utf-8")
        outcome = command(*other, "--output", "out.txt")
        assert outcome.code == 2
        assert f"was begun with another {words}: repeat the command" in outcome.error_line
    outcome = command("in.txt", "--output", "out.txt", "--batch_tokens", "7")
    assert outcome.code == 0, outcome.err
    assert "going on after 4 of 8 lines" in outcome.err
    assert "4 were there already" in outcome.err
    assert Path("out.txt").read_text(encoding="utf-8").split("\n") == [*(alone[line] for line in LINES), ""]
    assert sorted(path.name for path in folder.glob("out*")) == ["out.txt"]
    assert "exists already" in command("in.txt", "--output", "out.txt").error_line


@pytest.mark.parametrize("fault", ["the torn line stays", "the last line is counted twice"])
def test_a_line_that_is_lost_or_doubled_would_be_noticed(
    run_folder: Path, folder: Path, alone: dict[str, str], monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    _interrupted(run_folder, 2, monkeypatch)
    with Path("out.txt.part").open("a", encoding="utf-8") as file:
        file.write("cin")
    honest = resumable._drop_torn_line
    planted = {
        "the torn line stays": lambda part: part.read_bytes().count(b"\n"),
        "the last line is counted twice": lambda part: honest(part) + 1,
    }
    monkeypatch.setattr(resumable, "_drop_torn_line", planted[fault])
    translate_file(run_folder, "in.txt", "out.txt")
    assert Path("out.txt").read_text(encoding="utf-8").split("\n") != [*(alone[line] for line in LINES), ""]


def test_two_processes_do_not_write_one_file(run_folder: Path, folder: Path) -> None:
    with (
        resumable.resumable_lines(Path("out.txt"), {"input": "1"}),
        pytest.raises(OutputError, match="another process is writing it"),
    ):
        translate_file(run_folder, "in.txt", "out.txt")
    assert sorted(path.name for path in folder.iterdir()) == ["in.txt"]


def test_a_killed_process_goes_on(run_folder: Path, command, folder: Path, alone: dict[str, str]) -> None:
    lines = [line for _ in range(500) for line in LINES]
    (folder / "many.txt").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    arguments = ("translate", "--checkpoint", str(run_folder), "many.txt", "--output", "out.txt")
    part = folder / "out.txt.part"
    with started((*PYTHON_INSIGHT, *arguments), folder, "killed", {"OMP_NUM_THREADS": "1"}) as running:
        deadline = time.monotonic() + 100
        while not (part.exists() and part.stat().st_size):
            assert time.monotonic() < deadline, running.log.read_text()
            assert running.process.poll() is None, running.log.read_text()
            time.sleep(0.005)
        os.kill(running.process.pid, signal.SIGKILL)
        running.process.wait(30)
    kept = part.read_bytes().count(b"\n")
    assert 0 < kept < len(lines)
    outcome = command("many.txt", "--output", "out.txt")
    assert outcome.code == 0, outcome.err
    assert f"going on after {kept:,} of 4,000 lines" in outcome.err
    assert sorted(path.name for path in folder.glob("out*")) == ["out.txt"]
    assert (folder / "out.txt").read_text(encoding="utf-8").split("\n")[:-1] == [
        alone[line] for line in lines
    ]


def test_after_an_interruption_the_user_reads_how_to_go_on(
    command, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(done: int, total: int | None) -> None:
        raise KeyboardInterrupt

    @contextlib.contextmanager
    def interrupting(shows_bar: bool) -> Iterator[Callable[[int, int | None], None]]:
        yield interrupt

    _use_blocks_of_two(monkeypatch)
    monkeypatch.setattr("insight.cli.translate._progress", interrupting)
    outcome = command("in.txt", "--output", "out.txt")
    assert outcome.code == 130
    assert "2 of 8 lines are kept in out.txt.part; the same command goes on from there" in outcome.err
    outcome = command("in.txt")
    assert outcome.code == 130
    assert "interrupted; with --output FILE the same command would go on" in outcome.err


def test_progress_is_told_with_the_time_left(command, monkeypatch: pytest.MonkeyPatch) -> None:
    _use_blocks_of_two(monkeypatch)
    monkeypatch.setattr("insight.cli.translate._SECONDS_BETWEEN_LINES", 0.0)
    lines = command("in.txt").err.splitlines()
    assert lines[0] == "insight: translated 2/8 lines"
    assert re.fullmatch(r"insight: translated 6/8 lines, [\d.]+ s left", lines[2])
    assert lines[3].startswith("insight: translated 8 lines in")


# ------------------------------------------------------------ streams


def test_a_line_is_answered_before_the_next_is_sent(run_folder: Path, alone: dict[str, str]) -> None:
    command = [*PYTHON_INSIGHT, "translate", "--checkpoint", str(run_folder), "-"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin
        assert process.stdout
        for line in LINES[:4]:
            process.stdin.write(f"{line}\n")
            process.stdin.flush()
            assert process.stdout.readline() == f"{alone[line]}\n"  # it would wait for ever
        out, err = process.communicate("six", timeout=60)
        assert out == insight.translate(run_folder, ["six"])[0].text + "\n"
    assert process.returncode == 0, err
    assert "translated 5 lines" in err


def test_standard_input(command, monkeypatch: pytest.MonkeyPatch, alone: dict[str, str]) -> None:
    for arguments in ((), ("-",)):
        data = "".join(f"{line}\n" for line in LINES).encode()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
        assert command(*arguments).out.split("\n")[:-1] == [alone[line] for line in LINES]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"one\ntw\xffo\nsix\n")))
    outcome = command("-", "--output", "out.txt")
    assert "standard input: line 2, byte 7 (0xff) is not UTF-8" in outcome.error_line.replace(
        "byte 6", "byte 7"
    )
    assert not Path("out.txt").exists()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"one\n")))
    assert command("-", "--output", "out.txt").code == 0
    assert Path("out.txt").read_text(encoding="utf-8") == alone["one"] + "\n"


# ------------------------------------------------------------ other commands, and other models


def test_generate_translates_line_by_line(run_folder: Path, alone: dict[str, str]) -> None:
    generate = ("generate", "--checkpoint", str(run_folder))
    outcome = run_insight(*generate, "one two\n\nthree")
    assert outcome.out == f"{alone['one two']}\n\n{alone['three']}\n"
    record = json.loads(run_insight(*generate, "--json", "one two").out)
    assert record["text"] == alone["one two"]
    three = run_insight(*generate, "--n_best", "3", "--no_repeat_ngram", "2", "--json", "one two")
    record = json.loads(three.out)
    assert len(record["hypotheses"]) == 3
    assert record["decoding"].startswith("beam:5|score:sum/L^1|end:yes|stop:exact|norepeat:2|max:")
    worded = run_insight(*generate, "--num_beams", "5", "--must_contain", "cinco", "one two\nthree").out
    assert all(re.search(r"\bcinco", line) for line in worded.splitlines())
    line = run_insight(*generate, "--temperature", "0.5", "one two").error_line
    assert "--temperature=0.5: belongs to models that continue text" in line


def test_commands_for_other_models_refuse_in_one_line(
    run_folder: Path, finished_run: Path, folder: Path
) -> None:
    run = str(run_folder)
    (folder / "words.txt").write_text("one two three\n" * 50, encoding="utf-8")
    prune = ("tokenizer", "prune", "words.txt", "--max_loss", "0.1", "--output", "pruned")
    for arguments, words in (
        (("quantize", "--checkpoint", run, "--output", "small"), "holds a translation model"),
        (("benchmark", run, "--output", "compared"), "holds a translation model"),
        ((*prune, "--tokenizer", f"{run}/tokenizer.json", "--checkpoint", run), "is a translation model"),
        (("translate", "--checkpoint", str(finished_run), "in.txt"), "continues text and does not translate"),
    ):
        outcome = run_insight(*arguments)
        assert outcome.code == 2, (arguments, outcome.err)
        assert words in outcome.error_line, arguments
    assert sorted(path.name for path in folder.iterdir()) == ["in.txt", "words.txt"]
    assert isinstance(insight.load_model(finished_run), LoadedCheckpoint)
    assert isinstance(insight.load_model(run), LoadedTranslationModel)


# ------------------------------------------------------------ what a tired person types


def test_mistakes_end_in_one_line(command, folder: Path) -> None:
    (folder / "latin.txt").write_bytes("one\nni\xf1o\n".encode("latin-1"))
    (folder / "utf16.txt").write_text("one\n", encoding="utf-16")
    (folder / "noline.txt").write_bytes(b"x" * (2 << 20))
    (folder / "file").write_text("", encoding="utf-8")
    for arguments, words in (
        (("inn.txt",), "did you mean in.txt?"),
        (("one", "two"), "to translate these words: echo 'one two' | insight translate"),
        (("one two",), "echo 'one two'"),
        (("in.txt", "latin.txt"), "2 files are named"),
        ((".",), "is a folder"),
        (("latin.txt",), "line 2, byte 6 (0xf1) is not UTF-8: convert it first"),
        (("utf16.txt",), "UTF-16"),
        (("noline.txt",), "line 1 is longer than 1 MiB"),
        (("in.txt", "--n_best", "9", "--json"), "n_best=9: exceeds num_beams=5: use num_beams=9"),
        (("in.txt", "--num_beams", "0"), "num_beams=0: must be"),
        (("in.txt", "--num_beam", "2"), "did you mean '--num_beams'?"),
        (("in.txt", "--must_contain", ""), "must_contain"),
        (("in.txt", "--length_penalty", "nan"), "length_penalty=nan"),
        (("in.txt", "--output", "file/out.txt"), "is not a folder"),
        (("in.txt", "--output", "in.txt"), "exists already"),
        (("in.txt", "--output", ""), "--output=: is empty"),
        (("",), "FILE=: is empty"),
        (("in.txt", "--device", "cuda:99"), "cuda:99"),
        (("in.txt", "--checkpoint", "nowhere"), "--checkpoint=nowhere: does not exist"),
    ):
        outcome = command(*arguments)
        assert outcome.code == 2, (arguments, outcome.err)
        assert words in outcome.error_line, arguments
        assert not outcome.out
    assert len(list(folder.iterdir())) == 5


def test_the_python_of_the_guide_runs(
    run_folder: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the tiny model for the run; tests/cli/test_documented_commands.py runs the commands."""
    text = (Path(__file__).parents[2] / "docs" / "translation.md").read_text(encoding="utf-8")
    (folder / "runs" / "translation").mkdir(parents=True)
    (folder / "runs" / "translation" / "1").symlink_to(run_folder)
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    exec(code, {})
    assert capsys.readouterr().out.count("(") == 3  # hypotheses


def test_nothing_to_translate(command, folder: Path) -> None:
    (folder / "empty.txt").write_bytes(b"")
    outcome = command("empty.txt", "--output", "out.txt")
    assert (outcome.code, (folder / "out.txt").read_bytes()) == (0, b"")
    (folder / "blank.txt").write_bytes(b"\n \n\n")
    assert command("blank.txt").out == "\n\n\n"


def test_invalid_bytes_are_replaced_where_that_is_asked_for(command, folder: Path) -> None:
    (folder / "bad.txt").write_bytes(b"one\nt\xffwo\n")
    outcome = command("bad.txt", "--invalid_text", "skip", "--json")
    assert [json.loads(line)["source"] for line in outcome.out.splitlines()] == ["one", "two"]
    assert "left out at 1 place: bad.txt: line 2" in outcome.err


def test_an_input_that_changes_meanwhile_is_told(
    run_folder: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _use_blocks_of_two(monkeypatch)

    def change(done: int, total: int | None) -> None:
        with (folder / "in.txt").open("a") as file:
            file.write("six\n")

    with pytest.raises(insight.runtime.errors.DataError, match="was changed while it was translated"):
        translate_file(run_folder, "in.txt", "out.txt", progress=change)
    assert not (folder / "out.txt").exists()
