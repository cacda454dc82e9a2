"""JoeyNMT with random weights, trained for some seconds by its own training loop, and its translations.

It runs in an environment of its own, since it asks for an old protobuf. The ids are its words, so it has
the tokenizer of the others; model, batches of tokens, loop, clipping and search are its own code.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from joeynmt.config import parse_global_args
from joeynmt.datasets import BaseDataset
from joeynmt.prediction import predict, prepare
from joeynmt.training import TrainManager

from benchmarks.peers.measured import peak_resident_bytes
from benchmarks.peers.protocol import print_result, started_at


class Clock:
    """In the place of the schedule: learning rate by the clock, translations, and the end of the budget.

    Translating is not counted, and the rate's decay ends exactly with the budget.
    """

    def __init__(self, arguments: argparse.Namespace, manager: TrainManager, test: BaseDataset) -> None:
        self.arguments, self.manager, self.test = arguments, manager, test
        self.points = [share * arguments.budget for share in arguments.points]
        self.curve: list[dict[str, Any]] = []
        self._not_counted = 0.0
        self._set_rate(0)

    def step(self, step: int) -> None:
        """Called by the loop after every update."""
        seconds = self._seconds()
        done = seconds >= self.arguments.budget
        if done or (self.points and seconds >= self.points[0]):
            self.points = [point for point in self.points if point > seconds]
            begin = time.time()
            self.curve.append({"seconds": seconds, "step": step + 1, "translations": self._translate()})
            self._not_counted += time.time() - begin
        self.manager.stats.is_max_update = done
        self._set_rate(step + 1)

    def state_dict(self) -> dict[str, Any]:
        """The loop saves it with the last weights."""
        return {}

    def _seconds(self) -> float:
        return time.time() - started_at() - self._not_counted

    def _set_rate(self, step: int) -> None:
        warm = min(1.0, (step + 1) / self.arguments.warmup_steps)
        decay = 0.5 * (1 + math.cos(math.pi * min(1.0, self._seconds() / self.arguments.budget)))
        for group in self.manager.optimizer.param_groups:
            group["lr"] = self.arguments.learning_rate * warm * decay

    def _translate(self) -> list[list[int]]:
        manager = self.manager
        raw = predict(
            model=manager.model,
            data=self.test,
            device=manager.device,
            n_gpu=0,
            args=manager.dev_cfg,
            autocast=manager.autocast,
        )[3]
        manager.model.train()
        return [[int(word[1:]) for word in words if word[0] == "t"] for words in raw]


def write_words(file: Path, folder: Path) -> None:
    """Write the ids as words ``t0``, ``t1``, … into ``train.source`` and so on."""
    arrays = np.load(file)
    for split in ("train", "test"):
        for side in ("source", "target"):
            ends = arrays[f"{split}_{side}_ends"]
            # The last id of a sentence is its end of text, for which JoeyNMT has a token of its own.
            sentences = np.split(arrays[f"{split}_{side}"], ends[:-1])
            lines = (" ".join(f"t{number}" for number in ids[:-1].tolist()) for ids in sentences)
            (folder / f"{split}.{side}").write_text("\n".join(lines) + "\n", encoding="utf-8")


def configuration(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """What its YAML file would hold, after its own configuration of WMT'14 where the benchmark is silent."""
    words = folder / "vocabulary.txt"
    specials = ["<unk>", "<pad>", "<s>", "</s>"]
    words.write_text("\n".join([*specials, *(f"t{number}" for number in range(arguments.vocabulary_size))]))
    side = {"level": "word", "max_length": -1, "voc_file": str(words)}
    size = arguments.hidden_size
    block = {
        "type": "transformer",
        "num_heads": arguments.num_heads,
        "embeddings": {"embedding_dim": size, "scale": True, "dropout": arguments.dropout},
        "hidden_size": size,
        "ff_size": 4 * size,
        "dropout": arguments.dropout,
        "layer_norm": "pre",
        "activation": "swish",
    }
    return {
        "name": "benchmark",
        "model_dir": str(folder / "model"),
        "use_cuda": False,
        "normalization": "tokens",
        "random_seed": arguments.seed,
        "data": {
            "train": str(folder / "train"),
            "test": str(folder / "test"),
            "dataset_type": "plain",
            "src": {"lang": "source", **side},
            "trg": {"lang": "target", **side},
        },
        "testing": {
            "batch_size": 64,
            "batch_type": "sentence",
            "beam_size": arguments.beam,
            "max_output_length": 150,
        },
        "training": {
            "normalization": "tokens",
            "optimizer": "adamw",
            "adam_betas": [0.9, 0.95],  # and the decay of the other peer
            "weight_decay": 0.1,
            "learning_rate": arguments.learning_rate,
            "learning_rate_min": 0.0,
            "scheduling": "noam",  # it wants one; the clock takes its place
            "clip_grad_norm": 1.0,
            "label_smoothing": 0.1,
            "batch_size": arguments.batch_tokens // 2,  # it counts the longer side alone
            "batch_type": "token",
            "epochs": 1000,  # the clock stops the run
            "logging_freq": 1000,
            "validation_freq": 10**9,
        },
        "model": {
            "initializer": "xavier_uniform",
            "init_gain": 1.0,
            "bias_initializer": "zeros",
            "embed_initializer": "xavier_uniform",
            "embed_init_gain": 1.0,
            "tied_embeddings": True,
            "tied_softmax": True,
            "encoder": {**block, "num_layers": arguments.encoder_layers},
            "decoder": {**block, "num_layers": arguments.decoder_layers},
        },
    }


def main() -> None:
    """Train, translate at the points, and print the curve."""
    arguments = _arguments()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_words(arguments.pairs, folder)
        options = configuration(arguments, folder)
        (folder / "model").mkdir()
        settings = parse_global_args(options, rank=0, mode="train")
        torch.manual_seed(arguments.seed)
        model, train, _, test = prepare(settings, rank=0, mode="train")
        precision = {"device_type": "cpu", "enabled": arguments.precision == "bf16", "dtype": torch.bfloat16}
        manager = TrainManager(
            rank=0,
            model=model,
            model_dir=folder / "model",
            device=settings.device,
            autocast=precision,
            seed=settings.seed,
            train_args=settings.train,
            dev_args=settings.test,
        )
        clock = Clock(arguments, manager, test)
        manager.scheduler, manager.scheduler_step_at = clock, "step"
        manager.train_and_validate(train, test)
    print_result(
        {
            "curve": clock.curve,
            "num_steps": manager.stats.steps,
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "peak_bytes": peak_resident_bytes(),
        }
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=Path, required=True, help="ids written by numpy.savez")
    parser.add_argument("--network", type=json.loads, required=True, help="sizes as JSON")
    parser.add_argument("--batch-tokens", type=int, required=True, help="source and target together")
    parser.add_argument("--budget", type=float, required=True, help="seconds since the process was launched")
    parser.add_argument("--points", type=float, nargs="*", default=[], help="shares of it to translate after")
    parser.add_argument("--learning-rate", type=float, required=True)
    parser.add_argument("--warmup-steps", type=int, default=50)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--beam", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    vars(arguments).update(arguments.network)
    return arguments


if __name__ == "__main__":
    main()
