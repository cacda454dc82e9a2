"""JoeyNMT with random weights, trained for some seconds by its own training loop, and its translations.

It runs in an environment of its own, since it asks for an old protobuf. The ids are its words, so it has
the tokenizer of the others; model, batches of tokens, loop, clipping and search are its own code.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from joeynmt.config import parse_global_args
from joeynmt.datasets import BaseDataset
from joeynmt.prediction import predict, prepare
from joeynmt.training import TrainManager

from benchmarks.peers.translation_run import Curve, parse_arguments


class ClockSchedule:
    """In the place of the loop's schedule: the rate follows the clock, and the clock ends the training."""

    def __init__(self, curve: Curve, manager: TrainManager) -> None:
        self.curve, self.manager = curve, manager
        self._set_rate()

    def step(self, _: int) -> None:
        """Called by the loop after every update."""
        self.manager.stats.is_max_update = self.curve.step()
        self._set_rate()

    def state_dict(self) -> dict[str, Any]:
        """The loop saves it with the last weights."""
        return {}

    def _set_rate(self) -> None:
        for group in self.manager.optimizer.param_groups:
            group["lr"] = self.curve.arguments.learning_rate * self.curve.multiplier()


def translate(manager: TrainManager, test: BaseDataset) -> list[list[int]]:
    """The test sources by JoeyNMT's own search."""
    words_of_all = predict(
        model=manager.model,
        data=test,
        device=manager.device,
        n_gpu=0,
        args=manager.dev_cfg,
        autocast=manager.autocast,
    )[3]
    manager.model.train()
    return [[int(word[1:]) for word in words if word[0] == "t"] for words in words_of_all]


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
    arguments = parse_arguments(__doc__)
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
        curve = Curve(arguments, lambda: translate(manager, test))
        manager.scheduler, manager.scheduler_step_at = ClockSchedule(curve, manager), "step"
        manager.train_and_validate(train, test)
    curve.print(sum(parameter.numel() for parameter in model.parameters()))


if __name__ == "__main__":
    main()
