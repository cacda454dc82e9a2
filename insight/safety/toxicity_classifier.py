"""The built-in classifier of toxic text: its features, its file and its training.

``python -m insight.safety.toxicity_classifier`` trains it again from its sentences and writes its file.
"""

from __future__ import annotations

import argparse
import base64
import functools
import json
import math
import re
import unicodedata
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from insight.runtime.errors import ConfigError, DataError
from insight.runtime.files import atomic_write_text
from insight.runtime.statistics import wilson_interval
from insight.safety.bases import ErrorRates, TextClassifier, is_english
from insight.safety.material import lines_of

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_LETTERS = (3, 4, 5)
_SENTENCE_END = re.compile(r"(?<=[.!?…])\s+|\n+")
# A network may write without full stops; longer runs of words are judged in pieces.
_MOST_WORDS = 40


def hashed_ngrams(text: str, num_buckets: int) -> npt.NDArray[np.int64]:
    """The distinct hash buckets of a text's n-grams, ascending; ``num_buckets`` is a power of two.

    The n-grams are words, pairs of neighbouring words, and 3 to 5 letters within a word with its ends
    marked, in lower case (feature hashing: Weinberger et al. 2009, arXiv 0902.2206; here without signs).
    CRC-32 is equal on every machine, unlike Python's ``hash``.
    """
    buckets = {zlib.crc32(ngram.encode("utf-8", "replace")) & (num_buckets - 1) for ngram in _ngrams(text)}
    return np.array(sorted(buckets), dtype=np.int64)


def sentences(text: str) -> list[str]:
    """The non-empty sentences and lines of a text, cut into pieces of at most 40 words."""
    pieces = []
    for sentence in _SENTENCE_END.split(text):
        words = list(_WORD.finditer(sentence))
        for start in range(0, len(words), _MOST_WORDS):
            last = words[min(start + _MOST_WORDS, len(words)) - 1]
            pieces.append(sentence[words[start].start() : last.end()])
    return pieces


def _ngrams(text: str) -> Iterator[str]:
    before = "^"
    for word in _WORD.findall(unicodedata.normalize("NFKC", text).casefold().replace("’", "'")):
        yield word
        yield f"{before} {word}"
        before = word
        marked = f"<{word}>"
        for length in _LETTERS:
            for start in range(len(marked) - length + 1):
                yield f"-{marked[start : start + length]}"
    yield f"{before} $"


MODEL_PATH = Path(__file__).with_name("data") / "toxicity_model.json"
_TRAINING = "python -m insight.safety.toxicity_classifier --output FILE"
FORMAT_VERSION = 1
THRESHOLD = 0.5
"""Probability at and above which a sentence is classified as toxic."""


@dataclass(frozen=True)
class HeldOutCounts:
    """Numbers of held-out sentences, and of those classified correctly at :data:`THRESHOLD`."""

    num_toxic: int
    num_toxic_found: int
    num_civil: int
    num_civil_passed: int


@dataclass(frozen=True)
class NgramModel:
    """Logistic regression on hashed n-grams: int8 weights ``(buckets,)`` in units of ``scale``, and bias."""

    weights: npt.NDArray[np.int8]
    scale: float
    bias: float

    def probability(self, sentence: str) -> float:
        """Probability that one sentence is toxic."""
        buckets = hashed_ngrams(sentence, len(self.weights))
        # Feature vectors have length 1 for any number of n-grams, so long sentences are not more certain.
        total = int(self.weights[buckets].sum(dtype=np.int64))
        logit = self.bias + self.scale * total / max(1.0, len(buckets) ** 0.5)
        return 0.5 + 0.5 * math.tanh(logit / 2)  # the logistic function in a form that cannot overflow


def write_model(path: Path, model: NgramModel, counts: HeldOutCounts) -> None:
    """Write the file; equal models give equal bytes."""
    content = {
        "format_version": FORMAT_VERSION,
        "held_out": vars(counts),
        "bias": model.bias,
        "scale": model.scale,
        "weights": base64.b64encode(model.weights.tobytes()).decode("ascii"),
    }
    atomic_write_text(path, json.dumps(content, indent=1) + "\n")


def read_model(path: Path = MODEL_PATH) -> tuple[NgramModel, HeldOutCounts]:
    """Read a file of :func:`write_model`; :class:`ConfigError` if that is not possible."""
    try:
        content = json.loads(path.read_bytes())
        if content["format_version"] != FORMAT_VERSION:
            problem = f"format version {content['format_version']}, this insight reads {FORMAT_VERSION}"
            raise ConfigError(f"{path}: {problem}", f"train it again: {_TRAINING}")
        weights = np.frombuffer(base64.b64decode(content["weights"], validate=True), dtype=np.int8)
        if len(weights) == 0 or len(weights) & (len(weights) - 1):
            raise ValueError(f"{len(weights)} weights, not a power of two")
        model = NgramModel(weights, float(content["scale"]), float(content["bias"]))
        counts = HeldOutCounts(**{name: int(value) for name, value in content["held_out"].items()})
    except ConfigError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path}: is no toxicity model ({error})", f"train one: {_TRAINING}") from error
    return model, counts


MAX_CHARACTERS = 10_000
"""Most characters of a text that are classified; the rest is ignored."""


@dataclass(frozen=True)
class NgramClassifier(TextClassifier):
    """Logistic regression on hashed n-grams, trained on sentences in the package.

    It recognizes insults, threats and contempt for groups in English by their words alone, without irony
    or context. The probability of a text is that of its most toxic sentence, so long texts score higher
    than short ones; compare only texts of similar length.

    Args:
        model: A file from ``python -m insight.safety.toxicity_classifier``; the built-in one if empty.
    """

    model: str = ""

    def __post_init__(self) -> None:
        _cached(self._path)

    def probabilities(self, texts: Sequence[str]) -> list[float]:
        """Probability that each text is toxic; 0 for a text without words."""
        model, _ = _cached(self._path)
        return [
            max((model.probability(piece) for piece in sentences(text[:MAX_CHARACTERS])), default=0.0)
            for text in texts
        ]

    def reads(self, language: str) -> bool:
        """Whether the language is English."""
        return is_english(language)

    def error_rates(self) -> ErrorRates:
        """Rates on the held-out sentences, which share no template with the training sentences."""
        _, counts = _cached(self._path)
        return ErrorRates(
            sensitivity=wilson_interval(counts.num_toxic_found, counts.num_toxic),
            specificity=wilson_interval(counts.num_civil_passed, counts.num_civil),
            threshold=THRESHOLD,
            source=f"{counts.num_toxic} toxic and {counts.num_civil} civil held-out sentences",
        )

    @property
    def _path(self) -> Path:
        return Path(self.model).expanduser() if self.model else MODEL_PATH


_cached = functools.lru_cache(maxsize=4)(read_model)


SENTENCES_PATH = Path(__file__).with_name("data") / "toxicity_sentences.txt"
_HEADING = re.compile(r"\[(?:words (?P<words>\w+)|(?P<part>training|held-out) (?P<label>toxic|civil))\]")
_PLACE = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class LabelledSentence:
    """One sentence with its label.

    ``template`` is what it was made from; the sentence itself if it has no placeholders. Held-out sentences
    are for measuring alone.
    """

    text: str
    is_toxic: bool
    is_held_out: bool
    template: str


def read_sentences(path: Path = SENTENCES_PATH) -> list[LabelledSentence]:
    """All sentences in the order of the file.

    Raises:
        DataError: The file is missing or a line cannot be parsed; the message names the line.
    """
    words: dict[str, list[str]] = {}
    found: list[LabelledSentence] = []
    heading: re.Match[str] | None = None
    for line, where in lines_of(path):
        text = line.strip()
        if text.startswith("["):
            heading = _HEADING.fullmatch(text)
            if heading is None:
                raise DataError(f"{where}: {text} is no known heading", "see the other ones")
        elif heading is None:
            raise DataError(f"{where}: stands before any heading", "put it below one")
        elif name := heading["words"]:
            words[name] = [word.strip() for word in text.split(",")]
        else:
            is_toxic, is_held_out = heading["label"] == "toxic", heading["part"] == "held-out"
            filled = _fill(text, words, where)
            found += [LabelledSentence(sentence, is_toxic, is_held_out, text) for sentence in filled]
    return found


def _fill(template: str, words: dict[str, list[str]], where: str) -> list[str]:
    """The template with each word in its placeholder; several placeholders take their words in parallel."""
    places = _PLACE.findall(template)
    for place in places:
        if place not in words:
            raise DataError(f"{where}: there are no words for {{{place}}}", "add [words ...] above it")
    count = max((len(words[place]) for place in places), default=1)
    filled = []
    for index in range(count):
        text = template
        for place in places:
            text = text.replace(f"{{{place}}}", words[place][index % len(words[place])], 1)
        filled.append(text)
    return filled


NUM_BUCKETS = 1 << 16
_DECAY = 1e-4
_NUM_STEPS = 600
# A feature vector has length 1 and the bias adds 1: the curvature of the loss is at most 2/4, so 2 is stable.
_STEP = 2.0
_LARGEST = 127
# Total weight of the toxic sentences. It is less than half because the most toxic of several samples counts,
# so false alarms add up: one in twelve sentences of Emma is one, and one in five was with equal weights.
_TOXIC_SHARE = 0.3

Floats = npt.NDArray[np.float64]


def train(labelled: Sequence[LabelledSentence], num_buckets: int = NUM_BUCKETS) -> NgramModel:
    """Fit a logistic regression with weight decay by Nesterov's gradient method.

    It uses no random numbers and no matrix library, so the result does not depend on the machine: rounding
    the weights to bytes removes differences in the last bits of sums.
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
        ahead = stepped + momentum * (stepped - weights)
        bias_ahead = bias_stepped + momentum * (bias_stepped - bias)
        weights, bias = stepped, bias_stepped
    scale = float(f"{np.abs(weights).max() / _LARGEST:.6g}")
    return NgramModel(np.rint(weights / scale).astype(np.int8), scale, round(bias, 4))


def measure(model: NgramModel, held_out: Sequence[LabelledSentence]) -> HeldOutCounts:
    """Count the model's verdicts on held-out sentences."""
    toxic, civil = (
        [model.probability(sentence.text) >= THRESHOLD for sentence in held_out if sentence.is_toxic == label]
        for label in (True, False)
    )
    return HeldOutCounts(len(toxic), sum(toxic), len(civil), len(civil) - sum(civil))


def make_model(sentences: Path, output: Path) -> HeldOutCounts:
    """Train on the training part, measure on the held-out part, and write the file."""
    labelled = read_sentences(sentences)
    model = train([sentence for sentence in labelled if not sentence.is_held_out])
    counts = measure(model, [sentence for sentence in labelled if sentence.is_held_out])
    write_model(output, model, counts)
    return counts


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m insight.safety.toxicity_classifier", description=__doc__)
    for option, default, meaning in (
        ("--sentences", SENTENCES_PATH, "what to learn from"),
        ("--output", MODEL_PATH, "the model file to write"),
    ):
        parser.add_argument(option, type=Path, default=default, metavar="FILE", help=meaning)
    options = parser.parse_args()
    counts = make_model(options.sentences, options.output)
    print(
        f"{options.output}: finds {counts.num_toxic_found} of {counts.num_toxic} held-out toxic sentences, "
        f"passes {counts.num_civil_passed} of {counts.num_civil} civil ones"
    )


if __name__ == "__main__":
    main()
