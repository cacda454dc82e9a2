"""The actions of ``insight tokenizer`` as functions without torch: train, encode files, inspect, prune."""

from __future__ import annotations

import dataclasses
import functools
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from insight.data.sources.decoding import Reading as Reading
from insight.data.sources.decoding import TextRepairs
from insight.data.sources.files import expand_sources
from insight.data.sources.formats import Source, training_texts
from insight.data.tokenizers import (
    BaseTokenizer,
    BPETokenizerConfig,
    TokenizerConfig,
    WordTokenizerConfig,
    load_tokenizer,
)
from insight.data.tokenizers.pruning import PrunedTokenizer, PruningSearch
from insight.data.tokenizers.quality import (
    NamedText,
    compare_tokenizers,
    describe_tokenizer,
    measure_tokenizer,
    shown_token,
)
from insight.data.tokenizers.training import joint_vocabulary, separate_vocabularies
from insight.runtime.errors import CheckpointError, ConfigError
from insight.runtime.files import ensure_writable, new_folder, require_new
from insight.runtime.json_files import write_object
from insight.runtime.messages import say
from insight.runtime.run_folder import RunFolder, find_checkpoint
from insight.runtime.version import __version__

if TYPE_CHECKING:
    from insight.data.encoding.executors import ExecutorConfig

FORMAT_VERSION = 1
Files = str | Sequence[str]
"""Names of files and folders, globs, or ``corpus:NAME``."""


@dataclass(frozen=True)
class SavedTokenizer:
    """A trained tokenizer and the path of its ``tokenizer.json``."""

    path: Path
    tokenizer: BaseTokenizer


@dataclass(frozen=True)
class EncodedStore:
    """A token store that was made or found: its split, folder, and numbers of documents, bytes and tokens."""

    split: str
    path: str
    documents: int
    bytes: int
    tokens: int


def tokenizer_config(
    kind: Literal["bpe", "word"] = "bpe",
    vocabulary_size: int = 2048,
    min_frequency: int = 2,
    pre_tokenizer: str | None = None,
    normalization: str | None = None,
    special_tokens: Sequence[str] = (),
) -> TokenizerConfig:
    """The configuration of a tokenizer to train.

    Args:
        kind: Byte-level BPE (``bpe``), or one token for each word (``word``).
        vocabulary_size: Number of tokens; for words, the largest number.
        min_frequency: How often a pair or word must occur to become a token.
        pre_tokenizer: The rule that cuts text into words for BPE: ``gpt2``, ``single_digits`` or ``gpt4``.
        normalization: ``none``, ``nfc``, ``nfkc`` or ``lowercase``; for words ``none`` or ``lowercase``.
        special_tokens: Name of a further token of BPE that stands for no text, e.g. ``<|user|>``; may be
            given again.

    Raises:
        ConfigError: A value cannot work.
    """
    normalization = normalization or "none"
    if kind == "bpe":
        rule = pre_tokenizer or "gpt2"
        return BPETokenizerConfig(vocabulary_size, min_frequency, rule, normalization, tuple(special_tokens))
    for name, value in (("pre_tokenizer", pre_tokenizer), ("special_token", special_tokens)):
        if value:
            raise ConfigError(f"--{name} has no meaning for --kind word", "leave it out")
    if normalization not in ("none", "lowercase"):
        problem, remedy = "words cannot be normalized like this", "use none or lowercase"
        raise ConfigError(problem, remedy, option="normalization", value=normalization)
    return WordTokenizerConfig(vocabulary_size, min_frequency, lowercase=normalization == "lowercase")


def train_tokenizer(
    config: TokenizerConfig,
    output: str | Path,
    files: Files = (),
    languages: Mapping[str, Files] | None = None,
    *,
    separate: bool = False,
    reading: Reading = Reading(),
) -> list[SavedTokenizer]:
    """Train a tokenizer on text and write it.

    Args:
        config: The kind of tokenizer and its size.
        output: The ``tokenizer.json`` to write, or a folder that gets it; it must not exist yet.
        files: Files, folders, globs or corpus:NAME to train on.
        languages: Text of one language, e.g. de='german/*.txt'; may be given again, and all languages make
            one vocabulary.
        separate: Give each language a vocabulary of its own, ``NAME.json`` in the folder ``output``.
        reading: How the files are read.

    Raises:
        InsightError: The options contradict each other, a file cannot be read, ``output`` cannot be written,
            or the text does not support such a tokenizer.
    """
    languages = languages or {}
    output = Path(output)
    repairs = TextRepairs()
    if not files and not languages:
        raise ConfigError("there is no text to train on", "name files, or --text NAME=FILES")
    if not separate:
        output = output / "tokenizer.json" if output.is_dir() else output
        require_new(output, "output")
        ensure_writable(output.parent)
        texts = {"files": files, **languages} if files else languages
        trained = {output: joint_vocabulary(config, _training_texts(texts, reading, repairs))}
    else:
        if files or len(languages) < 2:
            problem = "--separate needs two --text or more, and no other files"
            raise ConfigError(problem, "use --text NAME=FILES")
        outputs = {name: output / f"{name}.json" for name in languages}
        for name, path in outputs.items():
            if path.parent != output:
                raise ConfigError("the name is no file name", "use e.g. de", option="text", value=name)
            require_new(path, "output")
        ensure_writable(output)
        vocabularies = separate_vocabularies(config, _training_texts(languages, reading, repairs))
        output.mkdir(parents=True, exist_ok=True)
        trained = {outputs[name]: tokenizer for name, tokenizer in vocabularies.items()}
    if told := repairs.describe(reading.invalid_text):
        say(told)
    for path, tokenizer in trained.items():
        tokenizer.save(path)
    return [SavedTokenizer(path, tokenizer) for path, tokenizer in trained.items()]


def encode_text(tokenizer: str | Path, text: str) -> tuple[list[int], list[str]]:
    """The ids of a text, and the text that each token shows.

    Raises:
        TokenizerError: The tokenizer cannot be read, or the text is not valid.
    """
    loaded = load_tokenizer(tokenizer)
    ids = loaded.encode(text)
    return ids, [shown_token(loaded, index) for index in ids]


def decode_ids(tokenizer: str | Path, ids: Sequence[int]) -> str:
    """The text of token ids, including the names of special tokens.

    Args:
        tokenizer: A ``tokenizer.json``, a folder that holds one, or a GGUF file.
        ids: The ids.

    Raises:
        TokenizerError: The tokenizer cannot be read, or has no such id.
    """
    return load_tokenizer(tokenizer).decode(ids, skip_special_tokens=False)


def encoding_executor(
    executor: Literal["local", "in_process", "dask"] | None = None,
    scheduler: str | None = None,
    num_workers: int | None = None,
) -> ExecutorConfig:
    """The executor that encodes files.

    Args:
        executor: Local processes (``local``, the default), this process (``in_process``), or a Dask cluster.
        scheduler: Address of a Dask cluster, tcp://HOST:PORT or its scheduler file; else one is started.
        num_workers: Number of processes; by default chosen by cores, memory and text.

    Raises:
        ConfigError: The options contradict each other.
    """
    from insight.data import DaskCluster, InProcess, LocalProcesses

    kind = executor or ("dask" if scheduler else "local")
    if kind != "dask" and scheduler:
        raise ConfigError(f"--scheduler with --executor {kind}", "use --executor dask")
    if kind == "in_process" and num_workers is not None:
        raise ConfigError("--num_workers with --executor in_process", "use --executor local")
    if kind == "dask":
        return DaskCluster(scheduler, num_workers)
    return LocalProcesses(num_workers) if kind == "local" else InProcess()


def encode_files(
    tokenizer: str | Path,
    files: Files,
    *,
    reading: Reading = Reading(),
    validation_fraction: float = 0.0,
    seed: int = 0,
    executor: ExecutorConfig | None = None,
    cache_dir: str | Path | None = None,
) -> list[EncodedStore]:
    """Encode files into token stores in the cache, where a run with the same options finds them.

    Args:
        tokenizer: A ``tokenizer.json``, a folder that holds one, or a GGUF file.
        files: The text.
        reading: How the files are read.
        validation_fraction: Share of the text that becomes a validation split, as in the data module.
        seed: Seed of that split.
        executor: Where the text is encoded; by default in local processes.
        cache_dir: The cache folder; by default the usual one.

    Raises:
        InsightError: An option cannot work, a file cannot be read, or the cache cannot be written.
    """
    from insight.data import LocalProcesses
    from insight.data.preparation import Preparation, TextFiles
    from insight.data.store import default_cache_dir

    named = files if isinstance(files, str) else list(files)
    options = (reading.text_field, validation_fraction, seed)
    text = TextFiles(named, None, None, None, *options, invalid_text=reading.invalid_text)
    cache = Path(cache_dir).expanduser() if cache_dir else default_cache_dir()
    preparation = Preparation(text, load_tokenizer(tokenizer), cache, executor=executor or LocalProcesses())
    made = []
    for split in filter(preparation.has, ("train", "validation")):
        store = preparation.store(split)
        sizes = (store.num_documents, store.num_bytes, store.num_tokens)
        made.append(EncodedStore(split, str(store.path), *sizes))
    return made


def inspect_tokenizer(
    tokenizer: str,
    files: Files = (),
    languages: Mapping[str, Files] | None = None,
    *,
    compare: str | None = None,
    rare_below: int = 10,
    seed: int = 0,
    output: str | Path | None = None,
    reading: Reading = Reading(),
) -> dict[str, Any]:
    """Describe a tokenizer, measure how well it fits texts, and compare it with another one on them.

    Args:
        tokenizer: A ``tokenizer.json``, a folder that holds one, or a GGUF file.
        files: Files, folders, globs or corpus:NAME to measure it on, each file by itself.
        languages: Text of one language, e.g. de='german/*.txt'; may be given again, and all files of a name
            are measured as one.
        compare: Another tokenizer, which is measured on the same text.
        rare_below: A token that occurs less often than this counts as hardly used.
        seed: Seed of the bootstrap of the comparison.
        output: A new folder for ``summary.json`` and ``report.html``.
        reading: How the files are read.

    Returns:
        The content of ``summary.json``: ``tokenizers`` (one entry each) and ``comparison``.

    Raises:
        InsightError: An option cannot work, a file cannot be read, or ``output`` cannot be written.
    """
    from insight.reporting.sections.tokenizer import build_tokenizer_quality, build_tokenizer_tokens

    if rare_below < 1:
        raise ConfigError("must be at least 1", "use e.g. 10", option="rare_below", value=rare_below)
    has_text = bool(files or languages)
    for option, value in (("compare", compare), ("output", output)):
        if value and not has_text:
            remedy = "name files, e.g. corpus:austen-emma"
            raise ConfigError("needs text to measure on", remedy, option=option, value=value)
    if output is not None:
        require_new(Path(output))
        ensure_writable(Path(output))
    paths = [tokenizer, *([compare] if compare else [])]
    loaded = [load_tokenizer(path) for path in paths]
    described = [{"name": path, **describe_tokenizer(each)} for path, each in zip(paths, loaded, strict=True)]
    summary: dict[str, Any] = {"format_version": FORMAT_VERSION, "tokenizers": described}
    if has_text:
        texts = _named_texts(files, reading, languages)
        measured = [measure_tokenizer(each, texts) for each in loaded]
        for facts, quality in zip(described, measured, strict=True):
            facts |= quality.to_dict(rare_below)
        if len(measured) == 2:
            difference = compare_tokenizers(measured[0], measured[1], seed)
            summary["comparison"] = {
                "token_share": measured[1].total.num_tokens / measured[0].total.num_tokens,
                "tokens_per_byte_difference": dataclasses.asdict(difference),
            }
    summary |= {"command": list(sys.argv), "insight_version": __version__}
    if output is not None:
        sections = (build_tokenizer_quality, build_tokenizer_tokens)
        _write_results(output, summary, sections, " against ".join(map(str, paths)))
    return summary


def prune_tokenizer(
    tokenizer: str,
    files: Files,
    output: str | Path,
    *,
    vocabulary_size: int | None = None,
    max_loss: float | None = None,
    checkpoint: str | None = None,
    reading: Reading = Reading(),
) -> dict[str, Any]:
    """Drop the tokens that a text hardly needs, and write the smaller tokenizer.

    Args:
        tokenizer: A ``tokenizer.json``, a folder that holds one, or a GGUF file; byte-pair encoding.
        files: The text that counts: files, folders, globs or corpus:NAME.
        output: A new folder for ``tokenizer.json``, ``old_to_new.json`` (the new id of each old one),
            ``summary.json``, ``report.html`` and ``model.ckpt``.
        vocabulary_size: Number of tokens to keep; or else ``max_loss``.
        max_loss: Keep as few as make the text at most this share longer; 0 drops what never occurs.
        checkpoint: A model with this tokenizer; a copy with the embedding rows of the kept tokens is written.
            Their logits stay the same; their log-probabilities rise, since the pruned ones had a share.
        reading: How the files are read.

    Returns:
        The content of ``summary.json``; ``sizes`` lists every size that was tried.

    Raises:
        InsightError: An option cannot work, a file cannot be read, the tokenizer or the checkpoint cannot be
            pruned, or ``output`` cannot be written.
    """
    from insight.reporting.sections.tokenizer import build_pruning

    if (vocabulary_size is None) == (max_loss is None):
        raise ConfigError("give either vocabulary_size or max_loss", "use e.g. max_loss 0.01")
    require_new(Path(output))
    ensure_writable(Path(output))
    if max_loss is not None and not max_loss >= 0:
        raise ConfigError("must not be negative", "use e.g. 0.01", option="max_loss", value=max_loss)
    model = find_checkpoint(checkpoint) if checkpoint else None
    if model is not None and model.is_dir():
        problem = "this is a quantized model, whose rows cannot be sliced"
        remedy = "prune the checkpoint that it was made from, then quantize that"
        raise CheckpointError(problem, remedy, option="checkpoint", value=checkpoint)
    before = load_tokenizer(tokenizer)
    search = PruningSearch(before, _named_texts(files, reading))
    pruned = search.to_loss(max_loss) if max_loss is not None else search.to_size(vocabulary_size or 0)
    search.try_curve()
    summary = _pruning_summary(before, search, pruned, files)

    def write_more(folder: Path) -> None:
        pruned.tokenizer.save(folder)
        table = [None if new < 0 else new for new in pruned.old_to_new.tolist()]
        (folder / "old_to_new.json").write_text(json.dumps(table) + "\n", encoding="ascii")
        if model is not None:
            from insight.checkpoints.pruned_vocabulary import write_pruned_checkpoint

            write_pruned_checkpoint(model, pruned, before.fingerprint(), folder / "model.ckpt")

    title = f"{before.vocabulary_size:,} tokens pruned to {pruned.tokenizer.vocabulary_size:,}"
    _write_results(output, summary, (build_pruning,), title, write_more)
    return summary


def _pruning_summary(
    before: BaseTokenizer, search: PruningSearch, pruned: PrunedTokenizer, files: Files
) -> dict[str, Any]:
    after = pruned.tokenizer
    sizes = [
        {
            "vocabulary_size": trial.vocabulary_size,
            "tokens": trial.num_tokens,
            "bytes_per_token": trial.num_bytes / trial.num_tokens,
            "tokens_per_byte": trial.num_tokens / trial.num_bytes,
            "loss": trial.loss,
            "is_chosen": trial.vocabulary_size == after.vocabulary_size,
        }
        for trial in sorted(search.trials.values(), key=lambda trial: trial.vocabulary_size)
    ]
    return {
        "format_version": FORMAT_VERSION,
        "before": {"vocabulary_size": before.vocabulary_size, "fingerprint": before.fingerprint()},
        "after": {"vocabulary_size": after.vocabulary_size, "fingerprint": after.fingerprint()},
        "largest_free_size": search.largest_free_size,
        "smallest_size": search.smallest_size,
        "sizes": sizes,
        "text": {"files": files, "bytes": search.before.total.num_bytes},
        "command": list(sys.argv),
        "insight_version": __version__,
    }


def _write_results(
    output: str | Path, summary: dict[str, Any], sections: Any, title: str, write_more: Any = None
) -> None:
    from insight.reporting.report import write_report

    with new_folder(Path(output)) as folder:
        write_object(folder / "summary.json", summary)
        write_report(RunFolder(folder), sections, title=title, kind="tokenizer")
        if write_more is not None:
            write_more(folder)


def _training_texts(
    texts: Mapping[str, Files], reading: Reading, repairs: TextRepairs
) -> dict[str, Iterable[str]]:
    """The documents of each text for training, long ones in parts; all files are checked at once."""

    def read(sources: list[Source]) -> Iterator[str]:
        for source in sources:
            yield from training_texts(source.parts(reading, repairs))

    return {name: read(expand_sources(files, "FILES")) for name, files in texts.items()}


def _named_texts(
    files: Files, reading: Reading, languages: Mapping[str, Files] | None = None
) -> list[NamedText]:
    """Each file, then all files of each language, with a function that reads the documents."""

    def read(sources: list[Source]) -> Iterator[str]:
        for source in sources:
            yield from source.documents(reading)

    groups = [(source.name, [source]) for source in expand_sources(files, "FILES")] if files else []
    groups += [(name, expand_sources(named, "FILES")) for name, named in (languages or {}).items()]
    return [(name, functools.partial(read, sources)) for name, sources in groups]
