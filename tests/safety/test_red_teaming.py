"""One result, however a run goes: alone, in parallel, cut off anywhere and taken up again."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from toy_models import BeginsWithDigit, Letters, likelihood, toy_suite, toy_target, write

from insight.data.tokenizers import ByteTokenizer
from insight.generation import GenerationSettings
from insight.models import DecoderConfig, GroupedQueryAttention
from insight.runtime.errors import ConfigError, OutputError
from insight.safety import CallableTarget, Material, Measure, NetworkTarget, Suite, red_team
from insight.safety.ledger import Ledger
from insight.safety.plan import make_plan
from insight.safety.red_teaming import ask, unfinished_folder
from insight.safety.results import evaluate
from insight.safety.targets import Blocked, Target

FILES = ["ledger.jsonl", "results.jsonl", "summary.json"]


def contents(folder: Path) -> list[bytes]:
    assert sorted(path.name for path in folder.iterdir()) == FILES
    return [(folder / name).read_bytes() for name in FILES]


class Stopping:
    """Stops like a killed process after some answers."""

    def __init__(self, target: Target, num_calls: int) -> None:
        self.target, self.left = target, num_calls
        self.name, self.identity, self.capabilities = target.name, target.identity, target.capabilities

    def generate(self, prompts: Sequence[str], settings: GenerationSettings, seeds: Sequence[int]) -> object:
        self._count()
        return self.target.generate(prompts, settings, seeds)

    def log_likelihood(self, prompts: Sequence[str], continuations: Sequence[Sequence[str]]) -> object:
        self._count()
        return self.target.log_likelihood(prompts, continuations)

    def _count(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt


def resumed(make: Callable[[], Target], output: Path, num_calls: int, cut_bytes: int = 0) -> list[bytes]:
    with pytest.raises(KeyboardInterrupt):
        red_team(Stopping(make(), num_calls), toy_suite(), output=output)  # type: ignore[arg-type]
    assert not output.exists()
    ledger = unfinished_folder(output) / "ledger.jsonl"
    data = ledger.read_bytes()
    ledger.write_bytes(data[: len(data) - cut_bytes])
    red_team(make(), toy_suite(), output=output)
    return contents(output)


def test_parallel_equals_serial(tmp_path: Path) -> None:
    def slowly(prompt: str, settings: GenerationSettings) -> str:
        time.sleep(random.Random(prompt).random() / 300)
        return write(prompt, settings)

    red_team(toy_target(), toy_suite(), output=tmp_path / "serial")
    parallel = CallableTarget("toy", slowly, likelihood, "toy-1")
    red_team(parallel, toy_suite(), output=tmp_path / "parallel", num_workers=5)
    assert contents(tmp_path / "serial") == contents(tmp_path / "parallel")


@pytest.mark.parametrize(("num_calls", "cut_bytes"), [(0, 0), (1, 0), (3, 7), (8, 1), (14, 300)])
def test_resumed_equals_uninterrupted(tmp_path: Path, num_calls: int, cut_bytes: int) -> None:
    red_team(toy_target(), toy_suite(), output=tmp_path / "whole")
    assert resumed(toy_target, tmp_path / "cut", num_calls, cut_bytes) == contents(tmp_path / "whole")


def test_a_target_with_a_random_state_of_its_own_is_noticed(tmp_path: Path) -> None:
    """The planted fault: chance that does not come from the seeds."""

    def careless() -> Target:
        state = random.Random(0)
        return CallableTarget("toy", lambda prompt, settings: f"{state.random()}", likelihood, "toy-1")

    red_team(careless(), toy_suite(), output=tmp_path / "whole")
    assert resumed(careless, tmp_path / "cut", 3) != contents(tmp_path / "whole")


def test_answers_on_disk_are_not_asked_for_again(tmp_path: Path) -> None:
    output, asked = tmp_path / "run", []

    def counting(prompt: str, settings: GenerationSettings) -> str:
        asked.append(prompt)
        return write(prompt, settings)

    with pytest.raises(KeyboardInterrupt):
        red_team(Stopping(toy_target(), 2), toy_suite(), output=output)  # type: ignore[arg-type]
    red_team(CallableTarget("toy", counting, likelihood, "toy-1"), toy_suite(), output=output)
    # 80 items of 5 samples in batches of 6 items; two batches were answered.
    assert len(asked) == 80 * 5 - 2 * 6 * 5


def test_the_ledger_of_another_plan_or_target_is_refused(tmp_path: Path) -> None:
    output = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        red_team(Stopping(toy_target(), 3), toy_suite(), output=output)  # type: ignore[arg-type]
    ledger = unfinished_folder(output) / "ledger.jsonl"
    before = ledger.read_bytes()
    with pytest.raises(OutputError, match="ledger of another plan"):
        red_team(toy_target(), toy_suite(), seed=1, output=output)
    with pytest.raises(OutputError, match="ledger of another model"):
        red_team(toy_target("toy-2"), toy_suite(), output=output)
    assert ledger.read_bytes() == before
    assert not output.exists()


def test_a_damaged_ledger_is_refused(tmp_path: Path) -> None:
    plan = make_plan(toy_suite(), Material(), toy_target().capabilities, 0)
    path = tmp_path / "ledger.jsonl"
    ask(plan, toy_target(), Ledger(path, plan, "toy-1"))
    whole = path.read_bytes()
    header, first, second, *rest = whole.splitlines(keepends=True)
    for broken in (header + second + first, header + b"{}\n", b"nonsense\n" + first, whole + rest[-1]):
        path.write_bytes(broken)
        with pytest.raises(OutputError, match="damaged"):
            Ledger(path, plan, "toy-1")


def test_two_processes_on_one_ledger_stop_at_once(tmp_path: Path) -> None:
    plan = make_plan(toy_suite(), Material(), toy_target().capabilities, 0)
    path = tmp_path / "ledger.jsonl"
    first, second = Ledger(path, plan, "toy-1"), Ledger(path, plan, "toy-1")
    ask(plan, toy_target(), first)
    whole = path.read_bytes()
    with pytest.raises(OutputError, match="another process"):
        ask(plan, toy_target(), second)
    assert path.read_bytes() == whole


def test_an_output_that_exists_is_refused_before_anything_is_asked(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with pytest.raises(OutputError, match="exists already"):
        red_team(Stopping(toy_target(), 0), toy_suite(), output=tmp_path / "run")  # type: ignore[arg-type]
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_only_ok_counts_and_coverage_says_what_does_not() -> None:
    def difficult(prompt: str, settings: GenerationSettings) -> str:
        number = int(prompt.split()[1])
        if prompt.startswith("probe") and number < 3:
            raise TimeoutError("no answer\nafter 60 s")
        if prompt.startswith("probe") and number < 5:
            raise Blocked("a filter")
        return "" if number == 5 else "7"

    suite = Suite((Measure("letters", Letters(num_samples=1), BeginsWithDigit()),))
    results = red_team(CallableTarget("difficult", difficult), suite)
    (measure,) = results.measures
    # Item 5 writes nothing, which the evaluator trips over: in either role it cannot be judged.
    assert measure.coverage == {"ok": 73, "error": 3, "blocked": 2, "unscorable": 2}
    assert measure.figures[0].interval.n == 34
    assert measure.figures[0].interval.value == 1.0
    assert results.outcomes[0].message == "TimeoutError: no answer"


def test_nothing_answered_is_no_data_and_never_a_zero() -> None:
    def broken(prompt: str, settings: GenerationSettings) -> str:
        raise RuntimeError("out of order")

    suite = Suite((Measure("letters", Letters(), BeginsWithDigit()),))
    (measure,) = red_team(CallableTarget("broken", broken), suite).measures
    assert (measure.status, measure.figures) == ("no data", ())
    assert "out of order" in measure.reason


def test_what_a_target_cannot_do_is_not_applicable() -> None:
    results = red_team(CallableTarget("writer", write), toy_suite())
    by_name = {measure.measure: measure for measure in results.measures}
    assert by_name["letters"].status == "measured"
    assert by_name["pairs"].status == "not applicable"
    assert "log-likelihood" in by_name["pairs"].reason
    assert by_name["pairs"].figures == ()


def test_likelihoods_that_are_no_numbers_cannot_be_judged() -> None:
    target = CallableTarget("nan", write, lambda prompt, continuation: float("-inf"))
    by_name = {measure.measure: measure for measure in red_team(target, toy_suite()).measures}
    assert by_name["pairs"].status == "no data"
    assert by_name["pairs"].coverage["unscorable"] == 300


def test_number_of_workers() -> None:
    with pytest.raises(ConfigError) as error:
        red_team(toy_target(), toy_suite(), num_workers=0)
    assert (error.value.option, error.value.value) == ("num_workers", 0)


@pytest.fixture(scope="module")
def network_target() -> NetworkTarget:
    torch.manual_seed(0)
    tokenizer = ByteTokenizer()
    attention = GroupedQueryAttention(num_heads=4, num_key_value_heads=2)
    config = DecoderConfig(hidden_size=32, num_layers=2, attention=attention, max_sequence_length=64)
    return NetworkTarget(config.build(tokenizer.vocabulary_size), tokenizer, "tiny", "tiny")


def network_suite() -> Suite:
    whole = toy_suite()
    letters = Measure("letters", Letters(num_items=10, num_samples=3), BeginsWithDigit())
    return Suite((letters, whole.measures[1]), "toy")


@pytest.mark.slow
def test_a_network_answers_the_same_however_it_is_asked(
    tmp_path: Path, network_target: NetworkTarget
) -> None:
    suite = network_suite()
    red_team(network_target, suite, output=tmp_path / "serial")
    red_team(network_target, suite, output=tmp_path / "parallel", num_workers=3)
    with pytest.raises(KeyboardInterrupt):
        red_team(Stopping(network_target, 1), suite, output=tmp_path / "cut")  # type: ignore[arg-type]
    red_team(network_target, suite, output=tmp_path / "cut")
    assert contents(tmp_path / "serial") == contents(tmp_path / "parallel") == contents(tmp_path / "cut")


def test_seeds_belong_to_items_not_to_their_place() -> None:
    few = make_plan(
        Suite((Measure("letters", Letters(3, 2), BeginsWithDigit()),)), Material(), ["generate"], 0
    )
    many = make_plan(
        Suite((Measure("letters", Letters(9, 2), BeginsWithDigit()),)), Material(), ["generate"], 0
    )
    assert [planned.seeds for planned in few.items] == [planned.seeds for planned in many.items][:6]
    assert len({seed for planned in many.items for seed in planned.seeds}) == 9 * 2 * 2


def test_evaluation_repeats_from_the_ledger_alone(tmp_path: Path) -> None:
    results = red_team(toy_target(), toy_suite(), output=tmp_path / "run")
    ledger = Ledger(tmp_path / "run" / "ledger.jsonl", results.plan, "toy-1")
    responses = [response for batch in ledger.responses for response in batch]
    again = evaluate(results.plan, responses, toy_target())
    assert again.measures == results.measures


def test_workers_end_with_the_run(tmp_path: Path) -> None:
    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        red_team(Stopping(toy_target(), 4), toy_suite(), output=tmp_path / "run", num_workers=3)  # type: ignore[arg-type]
    assert threading.active_count() == before
