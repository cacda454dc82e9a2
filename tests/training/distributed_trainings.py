"""Trainings that several processes do together, many in one start; run as a script by :func:`launch`."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import lightning.pytorch as pl
import numpy as np
import torch
from tiny_training import make_trainer
from tiny_translation_training import make_data as make_pairs
from tiny_translation_training import make_module as make_translation_module
from torch.multiprocessing import start_processes

from insight.callbacks import AveragedWeights
from insight.data import ByteTokenizerConfig, LanguageModelingDataModule, Packing, Windows
from insight.data.corpora import read_corpus
from insight.data.sampling import EvaluationWindows
from insight.generation.translator import Translation
from insight.models import (
    MLP,
    ActivationCheckpointing,
    Attention,
    BalanceBias,
    DecoderConfig,
    FeedForward,
    GatedDeltaNet,
    GroupedQueryAttention,
    LayerNorm,
    MixtureOfExperts,
    Norm,
    RMSNorm,
    SwiGLU,
)
from insight.runtime.seeding import seed_everything
from insight.runtime.sharded_tensors import local, part_like, whole
from insight.training import (
    AdamW,
    LanguageModelingModule,
    MuonAdamW,
    OptimizerConfig,
    TranslationModule,
    WarmupStableDecay,
)
from insight.training.parallel import FSDP2Strategy
from insight.training.step import AccumulationWindow
from insight.training.translation_metrics import TranslationScore, score_translations

_INITIALIZE = AccumulationWindow.__init__
_TRANSLATED = TranslationModule._translated
GLOBAL_BATCH_SIZE = 8
NUM_BYTES = 3_000
# Epochs end on the way, also in the shorter trainings, which validate twice after what they save.
NUM_STEPS = 30
FEWER_STEPS = 15
SAVED_STEP = 6
HANGING = ("not gathered", "remembered passes")
OPTIMIZERS: dict[str, OptimizerConfig] = {
    "adamw": AdamW(learning_rate=3e-3),
    "muon": MuonAdamW(precision="float32", weight_decay=0.01),  # bfloat16 blows last bits up
}


@dataclasses.dataclass(frozen=True)
class Scenario:
    """One training; the same for any number of processes but for ``strategy``.

    Args:
        name: Of its results and of its checkpoint.
        strategy: ``auto``, ``ddp``, ``fsdp2`` or ``tensor``: two processes share each matrix.
        optimizer: ``adamw`` or ``muon``.
        accumulate: Micro-batches a step.
        packed: Whether rows hold several documents, or windows of which the targets are ignored unevenly.
        clip: Gradients by ``norm`` or ``value``.
        network: ``plain``, ``tied`` (embedding and head), ``recomputing`` (activation checkpointing),
            ``biased`` (layer norms and biases), ``experts`` or ``linear`` (a mixer without softmax).
        precision: Lightning's name.
        averages: Whether an average of the weights is measured and saved.
        freeze: Parts of the network that are not trained.
        num_steps: Where it ends.
        saves: Whether it saves after ``SAVED_STEP`` steps, inside a window where there are some.
        resume: Checkpoint that it goes on from.
        translates: Whether it is one of a translation model, which has a ``network`` of its own.
        num_translated: Sentences that its validations translate, fewer than processes too; ``None`` for all.
        fault: What is done wrongly; see :func:`planted`.
    """

    name: str
    strategy: str = "auto"
    optimizer: str = "adamw"
    accumulate: int = 1
    packed: bool = False
    clip: str = "norm"
    network: str = "plain"
    precision: str = "32-true"
    averages: bool = False
    freeze: tuple[str, ...] = ()
    num_steps: int = FEWER_STEPS
    saves: bool = False
    resume: str | None = None
    translates: bool = False
    num_translated: int | None = None
    fault: str | None = None


class Observer(pl.Callback):
    """Ignores targets, saves, and keeps what was logged at every step."""

    def __init__(self, scenario: Scenario, checkpoint: Path) -> None:
        self.scenario, self.checkpoint = scenario, checkpoint
        self.losses: dict[int, float] = {}
        self.norms: dict[int, float] = {}
        self.validated: dict[int, dict[str, float]] = {}
        self.num_bytes: dict[int, int] = {}
        self.has_saved = False

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
        if self.scenario.packed or self.scenario.translates:
            return
        for row, row_id in enumerate(batch.input_ids.sum(1).tolist()):
            batch.targets[row, row_id % 29 :] = -100

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        is_open = trainer.fit_loop._should_accumulate()
        if not is_open:
            self.losses[trainer.global_step] = float(trainer.callback_metrics["train/loss"])
            self.norms[trainer.global_step] = float(trainer.callback_metrics["train/gradient_norm"])
        is_due = trainer.global_step == SAVED_STEP and is_open == (self.scenario.accumulate > 1)
        if self.scenario.saves and is_due and not self.has_saved:
            self.has_saved = True
            trainer.save_checkpoint(self.checkpoint)

    def on_validation_end(self, trainer: pl.Trainer, module: Any) -> None:
        metrics, step = trainer.callback_metrics, trainer.global_step
        assert step not in self.validated
        self.validated[step] = {name: float(metrics[name]) for name in metrics if "validation" in name}
        self.num_bytes[step] = int(module.likelihood.num_bytes)  # of this process alone


def train(folder: Path, scenario: Scenario, num_processes: int = 1) -> dict[str, Any]:
    """Train on this process as one of so many, and tell what it saw."""
    seed_everything(1)
    observer = Observer(scenario, folder / f"{scenario.name}.ckpt")
    strategy: Any = scenario.strategy
    num_sharing = 1
    if strategy == "tensor":
        strategy, num_sharing = FSDP2Strategy(tensor_parallel_size=2), 2
    elif scenario.fault in HANGING:
        strategy = FSDP2Strategy(timeout=timedelta(seconds=5))
    trainer = make_trainer(
        folder,
        scenario.num_steps,
        callbacks=[observer, *([AveragedWeights(0.9)] if scenario.averages else [])],
        strategy=strategy,
        devices=num_processes,
        precision=scenario.precision,
        accumulate_grad_batches=scenario.accumulate,
        gradient_clip_val=0.5 if scenario.clip == "norm" else 1e-3,
        gradient_clip_algorithm=scenario.clip,
        log_every_n_steps=1,
        limit_val_batches=None,
        val_check_interval=scenario.num_steps // 3 * scenario.accumulate,
        check_val_every_n_epoch=None,
    )
    module, data = (pair_parts if scenario.translates else text_parts)(
        folder, scenario, num_processes // num_sharing
    )
    with planted(scenario.fault):
        if num_processes > 1 and os.environ["LOCAL_RANK"] != "0":
            torch.rand(1)  # whatever a process may have drawn before
        trainer.fit(module, data, ckpt_path=scenario.resume, weights_only=True)
    weights = [whole(parameter.detach()).double() for parameter in module.network.parameters()]
    return {
        "losses": _by_name(observer.losses),
        "norms": _by_name(observer.norms),
        "validated": _by_name(observer.validated),
        # Processes that share matrices count the same rows.
        "num_bytes": _by_name(observer.num_bytes) if trainer.global_rank % num_sharing == 0 else None,
        "consumed": data.state_dict()["num_samples_consumed"],
        "weight": float(sum(weight.abs().sum() for weight in weights)),
        "numbers_held": sum(local(parameter).numel() for parameter in module.network.parameters()),
        "translations": getattr(module, "translations", {}).get("validation"),
    }


def pair_parts(folder: Path, scenario: Scenario, num_readers: int) -> tuple[Any, Any]:
    """Module and data of a translation training."""
    module = make_translation_module(
        optimizer=OPTIMIZERS[scenario.optimizer], translate_in_validation=scenario.num_translated
    )
    return module, make_pairs(folder, batch_tokens=256 // num_readers)


def text_parts(folder: Path, scenario: Scenario, num_readers: int) -> tuple[Any, Any]:
    """Module and data of a language modeling training."""
    module = LanguageModelingModule(
        network_of(scenario.network),
        optimizer=OPTIMIZERS[scenario.optimizer],
        schedule=WarmupStableDecay(warmup_steps=3),
        freeze=scenario.freeze,
        compile="off",
    )
    data = LanguageModelingDataModule(
        str(documents(folder)),
        tokenizer=ByteTokenizerConfig(),
        sampling=Packing() if scenario.packed else Windows(),
        sequence_length=32,
        batch_size=GLOBAL_BATCH_SIZE // num_readers,
        validation_fraction=0.2,
        cache_dir=str(folder / "cache"),
    )
    return module, data


def _by_name(values: dict[int, Any]) -> dict[str, Any]:
    """By step, as JSON has it."""
    return {str(step): value for step, value in values.items()}


def network_of(kind: str) -> DecoderConfig:
    """The network that :class:`Scenario` calls so."""
    attention: Attention = GroupedQueryAttention(num_heads=4, num_key_value_heads=2)
    feed_forward: FeedForward = SwiGLU(intermediate_size=64)
    norm: Norm = RMSNorm()
    if kind == "biased":
        attention = GroupedQueryAttention(num_heads=4, qkv_bias=True, output_bias=True)
        feed_forward, norm = MLP(intermediate_size=64, bias=True), LayerNorm()
    elif kind == "experts":
        feed_forward = MixtureOfExperts(4, 2, intermediate_size=32, balance=BalanceBias(0.01))
    elif kind == "linear":
        attention = GatedDeltaNet(num_heads=2)
    return DecoderConfig(
        hidden_size=32,
        num_layers=2,
        attention=attention,
        feed_forward=feed_forward,
        norm=norm,
        max_sequence_length=64,
        tie_embeddings=kind == "tied",
        activation_checkpointing=ActivationCheckpointing() if kind == "recomputing" else None,
    )


def documents(folder: Path) -> Path:
    """Parts of sentences of a novel, a document each."""
    path = folder / "text.jsonl"
    if not path.exists():
        parts = read_corpus("austen-emma")[:NUM_BYTES].split(",")
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in parts if text))
    return path


@contextlib.contextmanager
def planted(fault: str | None) -> Iterator[None]:
    """Do something wrongly that a proof has to notice.

    Args:
        fault: ``local counts``: each process normalises by the valid tokens of its own rows;
            ``same rows``: all processes read the rows of the first; ``local norm``: each clips by the norm
            of its own part; ``repeated tail``: surplus rows of a validation repeat the last one;
            ``no optimizer state``: it is not loaded; ``other world``: an open window is continued as if as
            many processes had saved it; ``rows as they lie``: fused matrices are cut as if they were one;
            ``no values``: what the first process drew does not reach the others; ``own divisor``: each
            process scales its loss by its own targets; ``mean of scores``: each scores its own translations,
            and the scores are averaged; ``equal shares``: the sentence that not all processes have is left
            out; ``one share after the other``: shares are put together in the order of the processes; ``not
            gathered``: processes that hold parts of a network translate with them; ``remembered passes``:
            translating leaves notes about its passes behind.
    """
    if fault is None:
        yield
        return
    gather, restore = EvaluationWindows.gather, AccumulationWindow.restore
    places: dict[str, tuple[Any, str, Any]] = {
        "local counts": (AccumulationWindow, "totals", _local_totals),
        "same rows": (LanguageModelingDataModule, "_rank", property(lambda self: 0)),
        "local norm": (sys.modules["insight.training.step"], "gradient_norm", _local_norm),
        "repeated tail": (
            EvaluationWindows,
            "gather",
            lambda self, windows: gather(self, np.minimum(windows, self.num_windows - 1)),
        ),
        "no optimizer state": (FSDP2Strategy, "load_optimizer_state_dict", lambda self, checkpoint: None),
        "other world": (
            AccumulationWindow,
            "restore",
            lambda state, *rest: restore({k: v for k, v in state.items() if k != "replicas"}, *rest),
        ),
        "rows as they lie": (
            sys.modules["insight.training.parallel"],
            "rows_by_process",
            lambda splits, size: torch.arange(sum(splits)),
        ),
        "own divisor": (AccumulationWindow, "__init__", _own_divisor),
        "mean of scores": (
            sys.modules["insight.training.translation"],
            "score_translations",
            _mean_of_scores,
        ),
        "equal shares": (sys.modules["insight.training.translation"], "score_translations", _equal_shares),
        "one share after the other": (TranslationModule, "_translated", _shares_in_turn),
        "not gathered": (sys.modules["insight.training.parallel"], "_gathered", contextlib.nullcontext),
        "remembered passes": (
            sys.modules["insight.training.parallel"],
            "_forget_forward_passes",
            lambda network: None,
        ),
        "no values": (sys.modules["insight.training.parallel"], "part_like", _nothing_sent),
    }
    owner, name, wrong = places[fault]
    with patch.object(owner, name, wrong):
        yield


def _local_totals(self: AccumulationWindow, trainer: Any) -> tuple[torch.Tensor, torch.Tensor]:
    return self.negative_log_likelihood, self.num_valid.to(torch.float32) * trainer.world_size


def _own_divisor(self: AccumulationWindow, divisor: int, device: torch.device) -> None:
    _INITIALIZE(self, divisor + 5 * int(os.environ["LOCAL_RANK"]), device)


def _mean_of_scores(texts: list[str], references: list[str], **options: Any) -> dict[str, TranslationScore]:
    halves = [score_translations(texts[rank::2], references[rank::2], **options) for rank in (0, 1)]
    return {
        name: dataclasses.replace(score, value=(score.value + halves[1][name].value) / 2)
        for name, score in halves[0].items()
    }


def _equal_shares(texts: list[str], references: list[str], **options: Any) -> dict[str, TranslationScore]:
    shared = len(texts) // 2 * 2
    return score_translations(texts[:shared], references[:shared], **options)


def _shares_in_turn(self: TranslationModule, sources: list[str]) -> list[Translation]:
    found = _TRANSLATED(self, sources)
    return [found[number] for rank in (0, 1) for number in range(rank, len(found), 2)]


def _local_norm(parameters: list[torch.nn.Parameter]) -> torch.Tensor:
    return torch.nn.utils.get_total_norm([local(p.grad) for p in parameters if p.grad is not None])


def _nothing_sent(value: torch.Tensor, part: torch.Tensor, row_order: torch.Tensor | None) -> torch.Tensor:
    return part_like(value * (os.environ["LOCAL_RANK"] == "0"), part, row_order)


def launch(folder: Path, num_processes: int, scenarios: list[Scenario]) -> dict[str, list[dict[str, Any]]]:
    """Do the trainings one after the other in so many processes; results by name, then by rank."""
    plan = json.dumps([dataclasses.asdict(scenario) for scenario in scenarios])
    process = subprocess.Popen(
        [sys.executable, __file__, str(folder), str(num_processes), plan],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        err = process.communicate(timeout=600)[1]
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    errors = [path.read_text() for path in sorted(folder.glob("error-*.txt"))]
    assert process.returncode == 0, "\n".join([err[-3000:], *errors])
    by_rank = [json.loads((folder / f"results-{rank}.json").read_text()) for rank in range(num_processes)]
    return {scenario.name: [results[scenario.name] for results in by_rank] for scenario in scenarios}


def train_all(rank: int, folder: Path, num_processes: int, port: int, scenarios: list[Scenario]) -> None:
    """The trainings of one process."""
    os.environ |= {
        "LOCAL_RANK": str(rank),
        "NODE_RANK": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    try:
        done = {scenario.name: train(folder, scenario, num_processes) for scenario in scenarios}
    except Exception as error:
        # The first to end has the others ended, and one of them may know why: the other of two that waited
        # for one another only sees its connection closed.
        (folder / f"error-{rank}.txt").write_text(str(error))
        end = time.monotonic() + 10
        while len(list(folder.glob("error-*.txt"))) < num_processes and time.monotonic() < end:
            time.sleep(0.05)
        raise
    (folder / f"results-{rank}.json").write_text(json.dumps(done))


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    torch.set_num_threads(1)
    place, world = Path(sys.argv[1]), int(sys.argv[2])
    plans = [Scenario(**plan) for plan in json.loads(sys.argv[3])]
    # Forked, they need not import everything again; when one fails, the others are ended.
    start_processes(train_all, (place, world, free_port(), plans), world, start_method="fork")
