"""MarianMT with random weights, trained for some seconds by transformers' Trainer, and its translations."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import MarianConfig, MarianMTModel, Trainer, TrainerCallback, TrainingArguments

from benchmarks.peers.measured import adamw, autocast
from benchmarks.peers.translation_run import Curve, parse_arguments

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


class ClockCallback(TrainerCallback):
    """The clock ends the training."""

    def __init__(self, curve: Curve) -> None:
        self.curve = curve

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        control.should_training_stop = self.curve.step()


@torch.no_grad()
def translate(
    model: MarianMTModel, sources: list[list[int]], arguments: argparse.Namespace
) -> list[list[int]]:
    """The sources in batches of like length, by transformers' own ``generate``."""
    model.eval()
    order = sorted(range(len(sources)), key=lambda index: len(sources[index]))
    found: list[list[int]] = [[] for _ in order]
    with autocast(arguments.precision):
        for first in range(0, len(order), _TRANSLATED_TOGETHER):
            chosen = order[first : first + _TRANSLATED_TOGETHER]
            batch = pad([{"input_ids": sources[index]} for index in chosen], model.config)
            longest = 2 * batch["input_ids"].shape[1] + 20
            output = model.generate(
                **batch, num_beams=arguments.beam, max_new_tokens=min(longest, 250), do_sample=False
            )
            for index, ids in zip(chosen, output[:, 1:].tolist(), strict=True):
                end = model.config.eos_token_id
                found[index] = ids[: ids.index(end)] if end in ids else ids
    model.train()
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
    arguments = parse_arguments(__doc__)
    torch.manual_seed(arguments.seed)
    pairs, model = Pairs(arguments.pairs), build(arguments)
    curve = Curve(arguments, lambda: translate(model, pairs.test_sources, arguments))
    optimizer = adamw(model, arguments.learning_rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: curve.multiplier())

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
            optimizers=(optimizer, schedule),
            callbacks=[ClockCallback(curve)],
        )
        trainer.train()
    curve.print(sum(parameter.numel() for parameter in model.parameters()))


if __name__ == "__main__":
    main()
