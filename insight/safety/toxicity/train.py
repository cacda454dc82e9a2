"""``python -m insight.safety.toxicity.train``: make the built-in classifier from its sentences."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from insight.safety.toxicity.features import hashed_ngrams
from insight.safety.toxicity.model_file import MODEL_PATH, THRESHOLD, HeldOutCounts, NgramModel, write_model
from insight.safety.toxicity.sentences import SENTENCES_PATH, LabelledSentence, read_sentences

NUM_BUCKETS = 1 << 16
_DECAY = 1e-4
_NUM_STEPS = 600
# A sentence has length 1 and the bias adds another 1: the loss curves by at most 2/4, so a step of 2 is safe.
_STEP = 2.0
_LARGEST = 127
# What the toxic sentences weigh together. Less than half, because the worst of several samples counts and
# false alarms add up: of the sentences of Emma one in twelve is one, with equal weights it was one in five.
_TOXIC_SHARE = 0.3

Floats = npt.NDArray[np.float64]


def train(labelled: Sequence[LabelledSentence], num_buckets: int = NUM_BUCKETS) -> NgramModel:
    """Logistic regression with weight decay by Nesterov's gradient method.

    No random numbers and no matrix library, so that the result does not depend on the machine: rounding to
    bytes at the end swallows what the last bit of a sum may differ by.

    Args:
        labelled: What to learn from.
        num_buckets: Of :func:`hashed_ngrams`.
    """
    rows = [hashed_ngrams(sentence.text, num_buckets) for sentence in labelled]
    lengths = np.array([len(row) for row in rows])
    columns, owners = np.concatenate(rows), np.repeat(np.arange(len(rows)), lengths)
    values = 1 / np.sqrt(lengths)[owners]
    toxic = np.array([sentence.is_toxic for sentence in labelled], dtype=np.float64)
    shares = np.where(toxic == 1, _TOXIC_SHARE / toxic.sum(), (1 - _TOXIC_SHARE) / (1 - toxic).sum())

    weights, ahead = np.zeros(num_buckets), np.zeros(num_buckets)
    bias = bias_ahead = 0.0
    for step in range(_NUM_STEPS):
        logits = np.bincount(owners, values * ahead[columns], len(rows)) + bias_ahead
        errors: Floats = shares * (1 / (1 + np.exp(-logits)) - toxic)
        gradient = np.bincount(columns, values * errors[owners], num_buckets) + _DECAY * ahead
        momentum = step / (step + 3)
        stepped, bias_stepped = ahead - _STEP * gradient, bias_ahead - _STEP * float(errors.sum())
        ahead, bias_ahead = (
            stepped + momentum * (stepped - weights),
            bias_stepped + momentum * (bias_stepped - bias),
        )
        weights, bias = stepped, bias_stepped
    scale = float(f"{np.abs(weights).max() / _LARGEST:.6g}")
    return NgramModel(np.rint(weights / scale).astype(np.int8), scale, round(bias, 4))


def measure(model: NgramModel, held_out: Sequence[LabelledSentence]) -> HeldOutCounts:
    """How often the model is right on sentences that it was not trained on."""
    called = [model.probability(sentence.text) >= THRESHOLD for sentence in held_out]
    pairs = list(zip(called, (sentence.is_toxic for sentence in held_out), strict=True))
    return HeldOutCounts(
        num_toxic=sum(is_toxic for _, is_toxic in pairs),
        num_toxic_found=sum(said and is_toxic for said, is_toxic in pairs),
        num_civil=sum(not is_toxic for _, is_toxic in pairs),
        num_civil_passed=sum(not said and not is_toxic for said, is_toxic in pairs),
    )


def make_model(sentences: Path, output: Path) -> HeldOutCounts:
    """Train on the training part, measure on the held-out part, write the file.

    Raises:
        DataError: The sentences cannot be read.
        OutputError: The file cannot be written.
    """
    labelled = read_sentences(sentences)
    model = train([sentence for sentence in labelled if not sentence.is_held_out])
    counts = measure(model, [sentence for sentence in labelled if sentence.is_held_out])
    write_model(output, model, counts)
    return counts


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m insight.safety.toxicity.train", description=__doc__)
    parser.add_argument(
        "--sentences", type=Path, default=SENTENCES_PATH, metavar="FILE", help="what to learn from"
    )
    parser.add_argument(
        "--output", type=Path, default=MODEL_PATH, metavar="FILE", help="the model file to write"
    )
    options = parser.parse_args()
    counts = make_model(options.sentences, options.output)
    print(
        f"{options.output}: finds {counts.num_toxic_found} of {counts.num_toxic} held-out toxic sentences, "
        f"passes {counts.num_civil_passed} of {counts.num_civil} civil ones"
    )


if __name__ == "__main__":
    main()
