"""MarianMT with random weights, trained for some seconds by transformers' Trainer, and its translations."""

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
from transformers import MarianConfig, MarianMTModel, Trainer, TrainerCallback, TrainingArguments

from benchmarks.peers.measured import adamw, autocast, peak_resident_bytes
from benchmarks.peers.protocol import print_result, started_at

_IGNORED = -100
_TRANSLATED_TOGETHER = 64


class Pairs(torch.utils.data.Dataset[dict[str, list[int]]]):
    """The training pairs, both sides with their end-of-text ids."""

    def __init__(self, file: Path) -> None:
        arrays = np.load(file)
        self.sides = [
            [ids.tolist() for ids in np.split(arrays[f"train_{side}"], arrays[f"train_{side}_ends"][:-1])]
            for side in ("source", "target")
        ]
        ends = arrays["test_source_ends"][:-1]
        self.test_sources = [ids.tolist() for ids in np.split(arrays["test_source"], ends)]

    def __len__(self) -> int:
        return len(self.sides[0])

    def __getitem__(self, index: int) -> dict[str, list[int]]:
        return {"input_ids": self.sides[0][index], "labels": self.sides[1][index]}


class Run(TrainerCallback):
    """The clock, the schedule and the translations of a run; translating is not counted.

    The learning rate follows the clock, so its decay ends exactly with the budget.
    """

    def __init__(self, arguments: argparse.Namespace, model: MarianMTModel, sources: list[list[int]]) -> None:
        self.arguments, self.model, self.sources = arguments, model, sources
        self.points = [share * arguments.budget for share in arguments.points]
        self.curve: list[dict[str, Any]] = []
        self.num_steps, self._not_counted = 0, 0.0

    def seconds(self) -> float:
        """Wall time since the process was launched, without the translations."""
        return time.time() - started_at() - self._not_counted

    def multiplier(self, _: int = 0) -> float:
        """Share of the peak learning rate: linear warm-up in steps, then half a cosine over the budget."""
        warm = min(1.0, (self.num_steps + 1) / self.arguments.warmup_steps)
        return warm * 0.5 * (1 + math.cos(math.pi * min(1.0, self.seconds() / self.arguments.budget)))

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.num_steps += 1
        seconds = self.seconds()
        done = seconds >= self.arguments.budget
        if done or (self.points and seconds >= self.points[0]):
            self.points = [point for point in self.points if point > seconds]
            begin = time.time()
            translations = self._translate()
            self.curve.append({"seconds": seconds, "step": self.num_steps, "translations": translations})
            self._not_counted += time.time() - begin
        control.should_training_stop = done

    @torch.no_grad()
    def _translate(self) -> list[list[int]]:
        """The test sources in batches of like length, by transformers' own ``generate``."""
        self.model.eval()
        order = sorted(range(len(self.sources)), key=lambda index: len(self.sources[index]))
        found: list[list[int]] = [[] for _ in order]
        with autocast(self.arguments.precision):
            for first in range(0, len(order), _TRANSLATED_TOGETHER):
                chosen = order[first : first + _TRANSLATED_TOGETHER]
                batch = pad([{"input_ids": self.sources[index]} for index in chosen], self.model.config)
                longest = 2 * batch["input_ids"].shape[1] + 20
                output = self.model.generate(
                    **batch, num_beams=self.arguments.beam, max_new_tokens=min(longest, 250), do_sample=False
                )
                for index, ids in zip(chosen, output[:, 1:].tolist(), strict=True):
                    end = self.model.config.eos_token_id
                    found[index] = ids[: ids.index(end)] if end in ids else ids
        self.model.train()
        return found


def pad(rows: list[dict[str, list[int]]], config: MarianConfig) -> dict[str, torch.Tensor]:
    """Rows of ids as tensors, padded on the right."""
    batch = {}
    for name in rows[0]:
        longest = max(len(row[name]) for row in rows)
        filler = _IGNORED if name == "labels" else config.pad_token_id
        batch[name] = torch.tensor([row[name] + [filler] * (longest - len(row[name])) for row in rows])
        if name == "input_ids":
            batch["attention_mask"] = (batch[name] != config.pad_token_id).long()
    return batch


def build(arguments: argparse.Namespace) -> MarianMTModel:
    """Marian of the same sizes; both matrices of its feed-forward layers are 4 times as wide."""
    size, heads = arguments.hidden_size, arguments.num_heads
    return MarianMTModel(
        MarianConfig(
            vocab_size=arguments.vocabulary_size + 1,  # its embedding needs an own id of padding
            pad_token_id=arguments.vocabulary_size,
            decoder_start_token_id=arguments.vocabulary_size,
            eos_token_id=arguments.end_of_text_id,
            forced_eos_token_id=None,
            d_model=size,
            encoder_layers=arguments.encoder_layers,
            decoder_layers=arguments.decoder_layers,
            encoder_attention_heads=heads,
            decoder_attention_heads=heads,
            encoder_ffn_dim=4 * size,
            decoder_ffn_dim=4 * size,
            max_position_embeddings=256,
            dropout=arguments.dropout,
            attention_dropout=0.0,
            activation_dropout=0.0,
            activation_function="swish",
            scale_embedding=True,
        )
    )


def main() -> None:
    """Train, translate at the points, and print the curve."""
    arguments = _arguments()
    torch.manual_seed(arguments.seed)
    pairs, model = Pairs(arguments.pairs), build(arguments)
    run = Run(arguments, model, pairs.test_sources)
    optimizer = adamw(model, arguments.learning_rate)

    def collate(rows: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
        batch = pad(rows, model.config)
        # With label smoothing the Trainer takes the labels away, so they do not reach the decoder.
        shifted = model.prepare_decoder_input_ids_from_labels(labels=batch["labels"])
        return {**batch, "decoder_input_ids": shifted}

    mean_length = sum(len(ids) for side in pairs.sides for ids in side) / len(pairs)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            model=model,
            args=TrainingArguments(
                output_dir=folder,
                per_device_train_batch_size=max(1, round(arguments.batch_tokens / mean_length)),
                num_train_epochs=1000,  # the clock stops the run
                train_sampling_strategy="group_by_length",
                label_smoothing_factor=0.1,
                bf16=arguments.precision == "bf16",
                use_cpu=True,
                max_grad_norm=1.0,
                logging_steps=1000,
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
                dataloader_pin_memory=False,
                seed=arguments.seed,
            ),
            train_dataset=pairs,
            data_collator=collate,
            optimizers=(optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, run.multiplier)),
            callbacks=[run],
        )
        trainer.train()
    print_result(
        {
            "curve": run.curve,
            "num_steps": run.num_steps,
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
