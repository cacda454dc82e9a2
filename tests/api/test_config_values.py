"""The meaning of a configuration: a class has its own defaults, text stays text, nonsense is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from insight.api.config_files import given_config, parse_yaml, read_config, yaml_text
from insight.api.configuration import InsightCLI
from insight.api.early_checks import check_early, early_mistakes
from insight.runtime.errors import ConfigError, InsightError, SeveralMistakesError, UserError
from insight.training import AdamW, OneCycle

TINY = ("--config", "tiny.yaml")
ATTENTION = "--model.network.attention"


def configured(*options: str) -> InsightCLI:
    return InsightCLI("fit", [*TINY, *options])


def chosen(cli: InsightCLI, *keys: str) -> dict[str, Any]:
    """The options of the class that is named under some keys of the module."""
    place = cli.config.as_dict()["model"]
    for key in keys:
        place = place["init_args"][key]
    options: dict[str, Any] = place["init_args"]
    return options


def mistakes(*options: str) -> list[str]:
    with pytest.raises(InsightError) as raised:
        configured(*options)
    error = raised.value
    found = error.errors if isinstance(error, SeveralMistakesError) else (error,)
    assert all(mistake.exit_code == 2 for mistake in found)
    return list(map(str, found))


@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("torch.optim.SGD", {"momentum": 0.0, "weight_decay": 0.0, "lr": 0.001}),
        ("torch.optim.AdamW", {"weight_decay": 0.01, "lr": 0.001}),
        ("AdamW", {"learning_rate": AdamW().learning_rate, "weight_decay": AdamW().weight_decay}),
    ],
)
@pytest.mark.parametrize("in_file", [True, False])
def test_an_optimizer_starts_from_its_own_defaults(
    workplace: Path, name: str, own: dict[str, float], in_file: bool
) -> None:
    options = [f"--model.optimizer={name}"]
    if in_file:
        (workplace / "more.yaml").write_text(
            f"model: {{optimizer: {{class_path: {name}}}}}", encoding="utf-8"
        )
        options = ["--config", "quickstart", "--config", "more.yaml"]
    found = chosen(configured(*options), "optimizer")
    assert {key: found[key] for key in own} == own


def test_attention_and_schedule_start_from_their_own_defaults(workplace: Path) -> None:
    cli = configured(
        f"{ATTENTION}=LatentAttention", "--model.schedule=OneCycle", "--model.schedule.rise_share=0.1"
    )
    attention = chosen(cli, "network")["attention"]["init_args"]
    assert attention["position"]["class_path"] == "insight.models.InterleavedRope"
    schedule = chosen(cli, "schedule")
    assert schedule["final_share"] == OneCycle().final_share
    assert schedule["rise_share"] == 0.1


@pytest.mark.parametrize("in_file", [True, False])
def test_a_list_of_callbacks_keeps_nothing_of_the_list_before(workplace: Path, in_file: bool) -> None:
    first = "trainer: {callbacks: [{class_path: SampleText, init_args: {every_n_validations: 7}}]}"
    (workplace / "first.yaml").write_text(first, encoding="utf-8")
    options = ["--config", "first.yaml", "--trainer.callbacks=[{class_path: SampleText}]"]
    if in_file:
        second = "trainer: {callbacks: [{class_path: SampleText}]}"
        (workplace / "second.yaml").write_text(second, encoding="utf-8")
        options = ["--config", "first.yaml", "--config", "second.yaml"]
    (callback,) = configured(*options).config.trainer.callbacks
    assert callback.init_args.every_n_validations == 1


def test_the_options_of_a_class_that_is_named_again_stay(workplace: Path) -> None:
    cli = configured("--config", "quickstart", "--model.optimizer=MuonAdamW", "--model.optimizer.beta1=0.8")
    found = chosen(cli, "optimizer")
    assert (found["learning_rate"], found["beta1"]) == (0.02, 0.8)


@pytest.mark.slow
@pytest.mark.parametrize("text", ["1e-4", "1e3", "007", "3.10", "0x1f", "1_000", "no", "12-3", "1.5e3"])
def test_text_that_could_be_a_number_stays_text(workplace: Path, text: str) -> None:
    content = (
        f"run: {{name: {text}, root: '{text}'}}\n"
        f"trainer: {{callbacks: [{{class_path: SampleText, init_args: {{prompts: [{text}, '{text}']}}}}]}}\n"
    )
    (workplace / "more.yaml").write_text(content, encoding="utf-8")
    cli = configured("--config", "more.yaml")
    assert (cli.run_config.name, cli.run_config.root) == (text, text)
    saved = cli.saved_config()
    assert yaml.safe_load(saved)["run"]["name"] == text
    (workplace / "saved.yaml").write_text(saved, encoding="utf-8")
    again = InsightCLI("fit", ["--config", "saved.yaml"])
    assert (again.run_config.name, again.run_config.root) == (text, text)
    assert again.callbacks[0].prompts == (text, text)  # type: ignore[attr-defined]
    assert again.saved_config() == saved


def test_a_clock_time_and_keys_that_look_like_switches(workplace: Path) -> None:
    content = (
        "run: {time_limit: 12:00:00}\n"
        "data: {train_files: {no: [train.txt], en: [validation.txt]}, sampling: {class_path: Mixture, "
        "init_args: {weights: {no: 1, en: 2}}}}\n"
    )
    (workplace / "more.yaml").write_text(content, encoding="utf-8")
    cli = configured("--config", "more.yaml")
    assert cli.run_config.time_limit_seconds == 12 * 3600
    assert list(cli.config.data.init_args.train_files) == ["no", "en"]


@pytest.mark.parametrize("text", ["1e3", "no", "", "~", "007", "-1", ".inf", "plain", "a: b", "\u2603"])
def test_what_is_written_is_read_back_by_every_reader(text: str) -> None:
    written = yaml_text({"value": text, text or "x": 1})
    assert yaml.safe_load(written)["value"] == text
    assert parse_yaml(written)["value"] == text


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("a: 1\na: 2", "given twice"),
        ("a: &x [*x]", "without end"),
        ("? [1, 2]\n: 3", "key must be text"),
        ("a: !!binary aGk=", "cannot be here"),
        ("- 1", "list"),
    ],
)
def test_files_that_no_option_can_hold(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match=said) as raised:
        read_config(path)
    assert raised.value.option == "--config"


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        (
            "trainer.val_check_interval=0", "trainer.accumulate_grad_batches=0",
            "trainer.check_val_every_n_epoch=0", "trainer.gradient_clip_val=-1",
            "trainer.log_every_n_steps=0", "trainer.limit_train_batches=0", "trainer.max_steps=-7",
            "run.time_budget=1e308", "run.time_limit=1e308", "run.hang_timeout=.inf",
            "run.num_threads=1000000000", "seed=null", "model.optimizer.learning_rate=1e308",
            "model.network.hidden_size=1000000000", "model.network.num_layers=1000000000",
            "data.validation_batch_size=1000000000", "data.batch_size=0", "trainer.barebones=true",
            "data.validation_fraction=2", "trainer.precision=bf17", "trainer.accelerator=foo",
            "trainer.gradient_clip_algorithm=foo", "trainer.devices=-3", "run.name=a/b",
            "run.root=train.txt/runs", "data.cache_dir=train.txt/cache", "model.network.dropout=1.5",
            "model.network.attention=Groupd",
        ),
        (
            "trainer.gradient_clip_val=.nan", "run.time_budget=.nan", "model.network=null",
            "trainer.max_steps=0", "trainer.max_epochs=0", "trainer.devices=0", "seed=-1",
        ),
        ("run=[]", "trainer=null", "data=null", "model=null"),
    ],
)  # fmt: skip
def test_values_that_nobody_means_are_told_at_once(workplace: Path, options: tuple[str, ...]) -> None:
    told = []
    for option in options:
        with pytest.raises(UserError) as raised:
            check_early("fit", [*TINY, f"--{option}"])
        assert raised.value.option == option.partition("=")[0]
        told.append(str(raised.value))
    assert set(told) <= set(mistakes(*(f"--{option}" for option in options)))


@pytest.mark.parametrize(
    ("option", "meant"),
    [
        ("model.network.num_heads", "model.network.attention.num_heads"),
        ("model.learning_rate", "model.optimizer.learning_rate"),
        ("trainer.learning_rate", "model.optimizer.learning_rate"),
        ("run.max_steps", "trainer.max_steps"),
        ("num_heads", "model.network.attention.num_heads"),
        ("max_step", "trainer.max_steps"),
    ],
)
def test_an_option_in_the_wrong_place_is_found_where_it_is(workplace: Path, option: str, meant: str) -> None:
    with pytest.raises(ConfigError) as raised:
        check_early("fit", [*TINY, f"--{option}=4"])
    assert (raised.value.option, raised.value.remedy) == (option, f"did you mean '--{meant}'?")


@pytest.mark.parametrize("name", ["model.schedule", "model.network.attention"])
def test_a_class_that_is_named_by_its_class_path(workplace: Path, name: str) -> None:
    with pytest.raises(ConfigError) as raised:
        check_early("fit", [*TINY, f"--{name}.class_path=Groupd"])
    assert (raised.value.option, raised.value.value) == (name, "Groupd")


def test_a_vocabulary_that_fits_no_memory_is_refused_before_it_is_tried(workplace: Path) -> None:
    options = ["--data.tokenizer=BPETokenizerConfig", "--data.tokenizer.vocabulary_size=1000000000"]
    assert "vocabulary_size=1000000000" in mistakes(*options)[0]


def test_nine_mistakes_are_told_at_once(workplace: Path) -> None:
    content = """\
run: {name: ../up, num_threads: 0}
data: {train_files: trian.txt, sequence_length: many, validation_fraction: 2}
model:
  network: {hiden_size: 16, dropout: -1, attention: {class_path: Gruped}}
  optimizer: {class_path: Adamw}
trainer: {max_setps: 4, precision: 32-true}
"""
    (workplace / "wrong.yaml").write_text(content, encoding="utf-8")
    with pytest.raises(SeveralMistakesError) as raised:
        InsightCLI("fit", ["--config", "wrong.yaml"])
    text = "\n".join(map(str, raised.value.errors))
    for words in (
        "../up", "num_threads=0", "trian.txt", "sequence_length=many", "validation_fraction=2", "hiden_size",
        "dropout=-1", "Gruped", "'AdamW'", "max_setps",
    ):  # fmt: skip
        assert words in text, text
    assert len(raised.value.errors) == 10


def test_a_default_that_stands_in_is_no_mistake(workplace: Path) -> None:
    assert len(mistakes(f"{ATTENTION}.num_heads=3")) == 1


@pytest.mark.slow
def test_abbreviated_options_are_refused(workplace: Path) -> None:
    assert mistakes("--trainer.max_step=3") == [
        "unknown option '--trainer.max_step': did you mean '--trainer.max_steps'?"
    ]
    assert "'--trainer.max_steps'" in mistakes("--max_steps=3")[0]


def test_every_shipped_configuration_passes_the_early_checks() -> None:
    from insight.api.config_files import shipped_configs

    for name in shipped_configs():
        config, _ = given_config(["--config", "quickstart", "--config", name])
        assert early_mistakes("fit", config, []) == [], name


def test_own_text_is_not_validated_on_novels(workplace: Path) -> None:
    config, left_out = given_config(["--config", "quickstart", "--data.train_files", "train.txt"])
    assert config["data"]["init_args"]["validation_files"] is None
    assert config["data"]["init_args"]["test_files"] is None
    assert [line.partition("=")[0] for line in left_out] == ["data.validation_files", "data.test_files"]
    sample = config["trainer"]["callbacks"][0]
    assert "prompts" not in sample["init_args"]


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--data.train_files=corpus:austen-emma"],
        ["--data.train_files=train.txt", "--data.validation_files=corpus:austen-persuasion",
         "--data.test_files=null"],
    ],
)  # fmt: skip
def test_what_the_user_names_is_kept(workplace: Path, options: list[str]) -> None:
    config, left_out = given_config(["--config", "quickstart", *options])
    assert left_out == ([] if len(options) < 3 else left_out)
    assert not any(line.startswith("data.validation_files") for line in left_out)
    assert config["data"]["init_args"]["validation_files"] == "corpus:austen-persuasion"


def test_one_batch_is_not_all_of_them(workplace: Path) -> None:
    given = (
        "--trainer.limit_val_batches=1",
        "--trainer.limit_test_batches=1.0",
        "--trainer.overfit_batches=2",
    )
    trainer = configured(*given, "--trainer.val_check_interval=0.5").config.trainer
    numbers = [trainer.limit_val_batches, trainer.limit_test_batches, trainer.overfit_batches]
    assert [(type(number), number) for number in numbers] == [(int, 1), (float, 1.0), (int, 2)]
    assert trainer.val_check_interval == 0.5
