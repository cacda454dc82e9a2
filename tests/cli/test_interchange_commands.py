"""``insight import`` and ``insight export``: a model comes in, is used, trained on, and leaves again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import run_insight, write_tiny

from insight.checkpoints import load_checkpoint
from insight.data.tokenizers import ByteTokenizer
from insight.runtime.run_folder import find_checkpoint

transformers = pytest.importorskip("transformers")

TEMPLATE = "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as save_pretrained writes it, with more rows than tokens and options left on."""
    folder = tmp_path_factory.mktemp("published") / "model"
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=264,
        hidden_size=36,
        intermediate_size=40,
        num_hidden_layers=1,
        num_attention_heads=6,
        num_key_value_heads=2,
        max_position_embeddings=64,
        bos_token_id=None,
        eos_token_id=256,
    )
    network = transformers.AutoModelForCausalLM.from_config(config)
    network.generation_config.temperature = 0.5
    network.generation_config.do_sample = True
    network.save_pretrained(folder)
    tokenizer = json.loads(ByteTokenizer().to_json())
    tokenizer["truncation"] = {"direction": "Right", "max_length": 8, "strategy": "LongestFirst", "stride": 0}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    (folder / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")
    (folder / "modeling_evil.py").write_text("raise SystemExit('code was run')", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def imported(published: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    done = run_insight(
        "import", f"hf:{published}", "--output", str(folder / "in"), "--config", str(_text(folder))
    )
    assert done.code == 0, done.err
    assert "7 rows of the embedding that no token has are left out" in done.err
    assert "truncation of tokenizer.json is left out" in done.err
    return folder / "in"


def _text(folder: Path) -> Path:
    """A configuration whose files are named by whole paths, with some windows of text for tests."""
    config = write_tiny(folder)
    shutil.copy(folder / "train.txt", folder / "test.txt")
    content = config.read_text(encoding="utf-8")
    for split in ("train", "validation", "test"):
        content = content.replace(f": {split}.txt", f": {folder / split}.txt")
    config.write_text(content, encoding="utf-8")
    return config


def test_the_numbers_are_those_of_transformers(published: Path, imported: Path) -> None:
    theirs = transformers.AutoModelForCausalLM.from_pretrained(published)
    ours = load_checkpoint(find_checkpoint(str(imported))).network
    ids = torch.randint(0, 256, (2, 20), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        difference = ours.logits(ours(ids)) - theirs(ids).logits[..., :257]
    assert difference.abs().max() <= 1e-5
    assert (imported / "chat_template.jinja").read_text(encoding="utf-8") == TEMPLATE
    assert json.loads((imported / "generation_config.json").read_text())["temperature"] == 0.5


@pytest.mark.slow
def test_an_imported_run_is_used_and_leaves_again(imported: Path, tmp_path: Path) -> None:
    written = run_insight("generate", "--checkpoint", str(imported), "Once", "--max_new_tokens", "4")
    assert written.code == 0, written.err
    measured = run_insight("test", "--checkpoint", str(imported))
    assert measured.code == 0, measured.err
    out = tmp_path / "out"
    done = run_insight("export", str(imported), "--output", str(out), "--json")
    assert done.code == 0, done.err
    checked = json.loads(done.out)["verification"]
    assert checked["agrees"]
    assert checked["num_equal_texts"] == checked["num_prompts"] == 20
    assert abs(checked["difference"]["value"]) < 1e-5
    assert checked["difference"]["low"] <= checked["difference"]["value"] <= checked["difference"]["high"]
    theirs = transformers.AutoTokenizer.from_pretrained(out)
    text = "naïve 日本 \n\n two  spaces"
    assert theirs(text).input_ids == [256, *ByteTokenizer().encode(text)]  # as Insight begins a prompt
    assert theirs.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False) == "user: Hi\n"
    assert theirs.eos_token == "<|endoftext|>"
    assert json.loads((out / "generation_config.json").read_text())["temperature"] == 0.5


@pytest.mark.slow
def test_an_export_that_computes_something_else_is_found(
    imported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from insight.interchange import huggingface

    plain = huggingface._own_or_neutral

    def swapped(name: str, ours: Any, shape: torch.Tensor) -> torch.Tensor:
        return -plain(name, ours, shape) if name == "head.weight" else plain(name, ours, shape)

    monkeypatch.setattr(huggingface, "_own_or_neutral", swapped)
    done = run_insight("export", str(imported), "--output", str(tmp_path / "out"))
    assert done.code == 1
    assert "does not compute what Insight computes" in done.error_line
    quiet = run_insight("export", str(imported), "--output", str(tmp_path / "two"), "--no-verify")
    assert quiet.code == 0
    assert "bits per byte" not in quiet.out


@pytest.mark.slow
def test_training_goes_on_from_it(published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = str(write_tiny(tmp_path))
    done = run_insight("fit", "--config", config, "--init_from", f"hf:{published}")
    assert done.code == 0, done.err
    assert f"initial weights: hf:{published}" in done.err
    ours = load_checkpoint(find_checkpoint("runs/tiny/1"))
    assert (ours.network_config.hidden_size, ours.network_config.max_sequence_length) == (36, 64)
    assert Path("runs/tiny/1/chat_template.jinja").read_text(encoding="utf-8") == TEMPLATE
    # A single option still overrides what the model decides, and then does not fit.
    refused = run_insight(
        "fit", "--config", config, "--init_from", f"hf:{published}", "--model.network.num_layers", "2"
    )
    assert refused.code == 2
    assert "num_layers" in refused.error_line


def _unchanged(folder: Path) -> None:
    return None


def _nan(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"][3] = float("nan")
    save_file(tensors, folder / "model.safetensors")


def _larger_tokenizer(folder: Path) -> None:
    data = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    for index in range(257, 280):
        token = {**data["added_tokens"][0], "id": index, "content": f"<|{index}|>"}
        data["added_tokens"].append(token)
    (folder / "tokenizer.json").write_text(json.dumps(data), encoding="utf-8")


def _pickle(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({"a": torch.ones(2)}, folder / "pytorch_model.bin")


def _renamed_pickle(folder: Path) -> None:
    torch.save({"a": torch.ones(2)}, folder / "model.safetensors")


def _truncated(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])


BAD: dict[str, tuple[Any, str]] = {
    "NaN": (_nan, "model.norm.weight holds NaN"),
    "a larger tokenizer": (_larger_tokenizer, "280 tokens, the embedding 264 rows"),
    "a pickle": (_pickle, "pytorch_model.bin, a pickle"),
    "a pickle by another name": (_renamed_pickle, "is a pickle"),
    "truncated": (_truncated, "truncated"),
    "no tokenizer": (lambda folder: (folder / "tokenizer.json").unlink(), "holds no tokenizer.json"),
    "no configuration": (lambda folder: (folder / "config.json").unlink(), "there is no such file"),
    "no folder": (lambda folder: shutil.rmtree(folder), "is no folder"),
}


@pytest.mark.parametrize(("spoil", "named"), BAD.values(), ids=BAD.keys())
def test_bad_models_leave_nothing_behind(published: Path, tmp_path: Path, spoil: Any, named: str) -> None:
    folder = tmp_path / "bad"
    shutil.copytree(published, folder)
    spoil(folder)
    before = sorted(tmp_path.rglob("*"))
    done = run_insight("import", f"hf:{folder}", "--output", str(tmp_path / "runs" / "in"))
    assert done.code == 2
    assert named in done.error_line
    assert sorted(tmp_path.rglob("*")) in (before, sorted([*before, tmp_path / "runs"]))


def test_wrong_words(imported: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    for arguments, named in (
        (["import", "runs/quickstart/1", "--output", out], "hf:FOLDER"),
        (["import", "hf:nowhere", "--output", str(tmp_path)], "exists already"),
        (["import", "hf:nowhere", "--output", out], "is no folder"),
        (["export", str(imported), "--output", str(tmp_path)], "exists already"),
        (["export", str(imported), "--output", out, "--format", "hugginface"], "did you mean 'huggingface'"),
        (["export", str(tmp_path), "--output", out], "holds no checkpoint"),
    ):
        done = run_insight(*arguments)
        assert done.code == 2, done.out
        assert named in done.error_line
    assert not Path(out).exists()


def test_without_transformers_a_line_says_so(
    imported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("insight.interchange.transformers_network.has_transformers", lambda: False)
    done = run_insight("export", str(imported), "--output", str(tmp_path / "out"), "--dtype", "bfloat16")
    assert done.code == 0, done.err
    assert "not verified: transformers is not installed" in done.out
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert theirs.dtype == torch.bfloat16
