"""Translate sentences with a model that a path names: a list of them, or a file, line by line."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import xxhash

from insight.generation.scores import LengthRuleName, find_length_rule
from insight.generation.settings import Sampling, check_search
from insight.runtime.errors import CheckpointError, ConfigError, DataError
from insight.runtime.files import ensure_writable, require_new
from insight.runtime.json_files import to_text
from insight.runtime.messages import say
from insight.runtime.processes import one_command
from insight.runtime.run_folder import ARTIFACT_DESCRIPTION, find_checkpoint

if TYPE_CHECKING:
    from insight.checkpoints import LoadedTranslationModel
    from insight.data.sources.sentences import SentenceLines
    from insight.generation.search import Hypothesis
    from insight.generation.translator import Translation, TranslationSettings, Translator
    from insight.runtime.resumable_lines import ResumableLines

Write = Callable[[Sequence[str]], None]

STANDARD_INPUT = "-"
_FIRST_BLOCK, _LARGEST_BLOCK = 16, 2048
_SECONDS_A_BLOCK = 5.0
_NUM_TOLD = 3
_LINE_ENDS = re.compile(r"[\r\n]+")


@dataclass(frozen=True)
class TranslationOptions:
    """How to translate.

    Args:
        num_beams: Running hypotheses for each sentence; 1 is greedy search, which is faster.
        n_best: Translations of each sentence, best first, in the output of json.
        length_rule: How the score of a hypothesis follows from the sum of its log-probabilities and its
            length, and when a search stops: ``mean`` (transformers' score, an exact stop), ``gnmt``,
            ``marian`` or ``ctranslate2``.
        length_penalty: Exponent of the length in that rule; more favours longer translations. Without it the
            rule's own.
        coverage_penalty: Factor by which a translation that leaves words of its source unread loses; 0 for
            none.
        temperature: Draw ``n_best`` translations at random, the wilder the higher, instead of searching;
            without it the likeliest are searched.
        top_k: Number of the most likely tokens to draw from.
        top_p: Draw only from the likeliest tokens that together reach this probability.
        min_p: Draw only from tokens at least this share as likely as the most likely one.
        seed: Seed of what is drawn; equal sentences get equal translations.
        no_repeat_ngram: Length of token sequences that may not occur twice in a translation; 0 allows all.
        prefix: Text that every translation begins with.
        must_contain: Text that every translation contains, at the beginning of a word if it begins with a
            letter; may be given again.
        must_not_contain: Text that no translation contains; may be given again.
        max_length_factor: Most tokens of a translation for each token of its source ...
        max_length_offset: ... and so many more.
        batch_tokens: Most tokens of sources that are translated side by side; it changes speed and memory,
            never a translation.
    """

    num_beams: int = 5
    n_best: int = 1
    length_rule: LengthRuleName = "mean"
    length_penalty: float | None = None
    coverage_penalty: float = 0.0
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    seed: int = 0
    no_repeat_ngram: int = 0
    prefix: str | None = None
    must_contain: Sequence[str] = ()
    must_not_contain: Sequence[str] = ()
    max_length_factor: float = 2.0
    max_length_offset: int = 20
    batch_tokens: int = 2048

    def __post_init__(self) -> None:
        self._check_sampling()
        check_search(self, self.num_beams if self.temperature is None else None)

    def _check_sampling(self) -> None:
        for name in ("top_k", "top_p", "min_p"):
            value = getattr(self, name)
            if self.temperature is None and value is not None:
                problem, remedy = "belongs to drawing at random", "add --temperature 1, or leave it out"
                raise ConfigError(problem, remedy, option=name, value=value)

    def settings(self) -> TranslationSettings:
        """These options in the form that a translator takes."""
        from insight.generation.search import SearchSettings
        from insight.generation.translator import TranslationSettings

        sampling = None
        if self.temperature is not None:
            sampling = Sampling(self.temperature, self.top_k, self.top_p, self.min_p, self.seed)
        return TranslationSettings(
            SearchSettings(
                beam_size=self.num_beams if sampling is None else self.n_best,
                num_best=self.n_best,
                length_rule=find_length_rule(self.length_rule, self.length_penalty),
                coverage_penalty=self.coverage_penalty,
                no_repeat_ngram=self.no_repeat_ngram,
                sampling=sampling,
            ),
            max_length_factor=self.max_length_factor,
            max_length_offset=self.max_length_offset,
            batch_tokens=self.batch_tokens,
            must_not_contain=tuple(self.must_not_contain),
        )


@dataclass(frozen=True)
class TranslatedFile:
    """The result of :func:`translate_file`.

    Attributes:
        num_lines: Lines of the source, those of an earlier call included.
        num_kept: Lines that an earlier call had translated.
        num_blank: Blank lines among those that this call translated.
        num_cut: Sentences among them that were longer than the network can read.
        seconds: Time for translating.
        signature: The decoding signature.
    """

    num_lines: int
    num_kept: int
    num_blank: int
    num_cut: int
    seconds: float
    signature: str


@one_command()
def translate(
    checkpoint: str | Path,
    texts: Sequence[str],
    *,
    to: str | None = None,
    device: str = "cpu",
    **options: Any,
) -> list[Translation]:
    """Translate sentences.

    Args:
        checkpoint: A run folder (its best checkpoint) or a ``.ckpt`` file of a translation model.
        texts: The sentences. A blank one has the empty translation.
        to: Language to translate into, for a model of both directions; without it the target language of its
            training.
        device: Where the model runs: cpu, cuda, cuda:1, mps.
        options: Fields of :class:`TranslationOptions`.

    Returns:
        A translation for each sentence, in their order; its ``text`` is the best hypothesis.

    Raises:
        InsightError: The error that the command prints.
    """
    if isinstance(texts, str):
        raise ConfigError("is one text", "give a list of sentences", option="texts", value=texts)
    known = [field.name for field in dataclasses.fields(TranslationOptions)]
    for name in options:
        if name not in known:
            raise ConfigError(f"unknown option {name!r}", f"choose from {', '.join(known)}")
    chosen = TranslationOptions(**options)
    return translated(open_translator(checkpoint, to, device), texts, chosen)


def open_translator(checkpoint: str | Path, to: str | None = None, device: str = "cpu") -> Translator:
    """The translator in a checkpoint; arguments and errors as in :func:`translate`."""
    path = find_checkpoint(str(checkpoint))

    from insight.checkpoints import LoadedTranslationModel
    from insight.checkpoints.artifact import load_model
    from insight.runtime.hardware import usable_device

    loaded = load_model(path, usable_device(device))
    if not isinstance(loaded, LoadedTranslationModel):
        problem = f"{path}: holds a model that continues text and does not translate"
        remedy = "use `insight generate` for it, or name a run of configs/translation.yaml"
        raise CheckpointError(problem, remedy)
    return translator_of(loaded, to)


def translator_of(loaded: LoadedTranslationModel, to: str | None = None) -> Translator:
    """The translator of a loaded model; ``to`` as in :func:`translate`."""
    from insight.data.pair_preparation import tag_id
    from insight.generation.translator import Translator

    source, target = loaded.languages
    tag = None
    if loaded.directions == "both":
        tag = tag_id(loaded.source_tokenizer, target if to is None else to)
    elif to not in (None, target):
        problem = f"the model translates from {source} into {target} only"
        remedy = "leave it out, or train with --data.directions both"
        raise ConfigError(problem, remedy, option="to", value=to)
    return Translator(loaded.network, loaded.source_tokenizer, loaded.tokenizer, tag)


@one_command()
def translate_file(
    checkpoint: str | Path,
    source: str | Path,
    output: str | Path | Write,
    *,
    to: str | None = None,
    device: str = "cpu",
    json: bool = False,
    invalid_text: Literal["error", "replace", "skip"] = "error",
    options: TranslationOptions = TranslationOptions(),
    progress: Callable[[int, int | None], None] | None = None,
) -> TranslatedFile:
    """Translate a file line by line: each line of the source becomes one line, and blank lines stay blank.

    Args:
        checkpoint: A run folder (its best checkpoint) or a ``.ckpt`` file of a translation model.
        source: A text file in UTF-8 with a sentence in each line, also ``.gz``, ``.bz2``, ``.xz`` or
            ``.zst``; ``-`` is standard input, which is translated as it comes.
        output: File to make, which must not exist. If the call is interrupted, repeating it continues where
            it stopped. Or a function that is called with the next lines.
        to: Language to translate into, for a model of both directions; without it the target language of its
            training.
        device: Where the model runs: cpu, cuda, cuda:1, mps.
        json: Write a JSON object for each line, with the source, all hypotheses and their scores.
        invalid_text: The treatment of bytes that are no UTF-8: error, replace (by U+FFFD) or skip.
        options: How to translate.
        progress: A function that is called with the number of finished lines and of all lines, if known.

    Returns:
        Counts of lines.

    Raises:
        InsightError: The error that the command prints.
    """
    if options.n_best > 1 and not json:
        problem, remedy = "needs JSON, since plain output has one line for each line", "add --json"
        raise ConfigError(problem, remedy, option="n_best", value=options.n_best)
    path = find_checkpoint(str(checkpoint))
    settings = options.settings()
    work, total = _describe_source(str(source), invalid_text)
    if work is not None:
        work |= {"checkpoint": _hash(path), "--to": to, "--json": json, "--invalid_text": invalid_text}
        work |= {f"--{name}": value for name, value in vars(options).items() if name != "batch_tokens"}
    with contextlib.ExitStack() as stack:
        lines: ResumableLines | None = None
        if not callable(output):
            require_new(Path(output))
            ensure_writable(Path(output).parent)
            lines = stack.enter_context(_resumable(Path(output), work, total))
        num_kept = lines.num_done if lines else 0
        translator = open_translator(path, to, device)
        reader = stack.enter_context(_open(str(source), invalid_text))
        counts = _Counts(_skip(reader, num_kept))
        began = time.perf_counter()
        for texts in _blocks(reader):
            translations = translated(translator, texts, options)
            written = counts.add(texts, translations, settings.signature if json else None)
            (lines.append if lines else cast("Write", output))(written)
            if progress:
                progress(counts.num_lines, total)
        if told := reader.repairs.describe(invalid_text):
            say(told)
        if work is not None and reader.content_hash != work["input"]:
            raise DataError(f"{source}: was changed while it was translated", "translate it again")
        if lines:
            lines.finish()
    seconds = time.perf_counter() - began
    cut = counts.num_cut
    return TranslatedFile(counts.num_lines, num_kept, counts.num_blank, cut, seconds, settings.signature)


class _Counts:
    """Counts what was translated, and makes a line of each translation."""

    def __init__(self, num_lines: int) -> None:
        self.num_lines = num_lines
        self.num_blank = self.num_cut = 0

    def add(
        self, texts: Sequence[str], translations: Sequence[Translation], json_with: str | None
    ) -> list[str]:
        """The lines of the translations, as JSON with the decoding signature ``json_with`` if it is given."""
        lines = []
        for text, translation in zip(texts, translations, strict=True):
            self.num_lines += 1
            self.num_blank += not text.strip()
            self.num_cut += translation.was_cut
            if translation.was_cut and self.num_cut <= _NUM_TOLD:
                length = f"{translation.num_source_tokens - 1:,} tokens, which is all that the model reads"
                say(f"line {self.num_lines}: cut after {length}")
            if json_with is None:
                lines.append(_LINE_ENDS.sub(" ", translation.text))
            else:
                lines.append(to_text(_record(self.num_lines, text, translation, json_with)))
        return lines


def hypothesis_records(hypotheses: Sequence[tuple[str, Hypothesis]]) -> list[dict[str, Any]]:
    """Texts of a search with their scores as plain JSON values."""
    return [
        {
            "text": text,
            "score": hypothesis.score,
            "log_probability": hypothesis.log_probability,
            "is_finished": hypothesis.is_finished,
        }
        for text, hypothesis in hypotheses
    ]


def _record(number: int, text: str, translation: Translation, signature: str) -> dict[str, Any]:
    return {
        "line": number,
        "source": text,
        "translation": translation.text,
        "was_cut": translation.was_cut,
        "hypotheses": hypothesis_records(translation.hypotheses),
        "decoding": signature,
    }


def translated(
    translator: Translator, texts: Sequence[str], options: TranslationOptions
) -> list[Translation]:
    """Translate sentences with these options; the order is kept."""
    return translator.translate(
        texts,
        options.settings(),
        [options.prefix] * len(texts) if options.prefix else None,
        [options.must_contain] * len(texts) if options.must_contain else None,
    )


def _blocks(reader: SentenceLines) -> Iterator[list[str]]:
    """The lines in blocks, each of which takes about as long to translate."""
    size, began = _FIRST_BLOCK, time.perf_counter()
    while texts := reader.take(size):
        began = time.perf_counter()
        yield texts
        seconds = max(time.perf_counter() - began, 1e-3)
        size = min(_LARGEST_BLOCK, max(_FIRST_BLOCK, int(_SECONDS_A_BLOCK / seconds * len(texts))))


# ------------------------------------------------------------ sources and outputs


def _describe_source(source: str, invalid_text: str) -> tuple[dict[str, Any] | None, int | None]:
    """The hash of a file's content, and the number of its lines; ``None`` for a stream."""
    from insight.data.sources.sentences import is_regular, open_sentences

    if source == STANDARD_INPUT or not is_regular(Path(source)):
        return None, None
    with open_sentences(Path(source), invalid_text) as reader:
        while reader.take(_LARGEST_BLOCK):
            pass
        return {"input": reader.content_hash}, reader.num_lines


@contextlib.contextmanager
def _open(source: str, invalid_text: str) -> Iterator[SentenceLines]:
    from insight.data.sources.sentences import SentenceLines, open_sentences

    if source == STANDARD_INPUT:
        yield SentenceLines(sys.stdin.buffer, "standard input", invalid_text, is_live=True)
        return
    with open_sentences(Path(source), invalid_text) as reader:
        yield reader


def _skip(reader: SentenceLines, num_lines: int) -> int:
    """Pass over the lines that are translated already; returns how many."""
    left = num_lines
    while left and (taken := reader.take(min(left, _LARGEST_BLOCK))):
        left -= len(taken)
    return num_lines - left


@contextlib.contextmanager
def _resumable(path: Path, work: dict[str, Any] | None, total: int | None) -> Iterator[ResumableLines]:
    """The output of a file; where the work ends early, say what is kept."""
    from insight.runtime.resumable_lines import resumable_lines

    with resumable_lines(path, work) as lines:
        of_all = "" if total is None else f" of {total:,}"
        if lines.num_done:
            say(f"going on after {lines.num_done:,}{of_all} lines in {lines.part}")
        try:
            yield lines
        except BaseException:
            if lines.num_done and work is not None:
                kept = f"{lines.num_done:,}{of_all} lines are kept in {lines.part}"
                say(f"{kept}; the same command goes on from there")
            raise


def _hash(checkpoint: Path) -> str:
    """The hash of a checkpoint; of the description of a quantized model, which holds that of its weights."""
    path = checkpoint / ARTIFACT_DESCRIPTION if checkpoint.is_dir() else checkpoint
    with path.open("rb") as file:
        return str(hashlib.file_digest(file, xxhash.xxh3_128).hexdigest())
