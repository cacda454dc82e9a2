"""``insight tokenizer encode``: a text to its ids, or whole files to a token store in the cache."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from insight.cli.arguments import read_standard_input
from insight.cli.tokenizer_texts import add_reading, add_tokenizer
from insight.runtime.errors import ConfigError

if TYPE_CHECKING:
    from insight.data.encoding.executors import ExecutorConfig

_EXECUTORS = ("local", "in_process", "dask")
# Options that mean something only for files.
_OF_FILES = ("executor", "scheduler", "num_workers", "cache_dir", "validation_fraction", "seed")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the action."""
    add_tokenizer(parser)
    parser.add_argument("text", nargs="?", metavar="TEXT", help="the text; standard input if not given")
    parser.add_argument(
        "--files",
        nargs="+",
        metavar="FILES",
        help="encode files, folders, globs or corpus:NAME instead, into the cache, where a run finds it",
    )
    parser.add_argument(
        "--executor",
        choices=_EXECUTORS,
        help="where files are encoded: local processes, this process, a Dask cluster (default: local)",
    )
    parser.add_argument(
        "--scheduler",
        metavar="ADDRESS",
        help="dask: of the cluster, tcp://HOST:PORT or its scheduler file (default: one of this machine)",
    )
    parser.add_argument(
        "--num_workers", type=int, metavar="N", help="local processes (default: by cores, memory and text)"
    )
    parser.add_argument(
        "--validation_fraction",
        type=float,
        metavar="F",
        help="encode the two parts that data.validation_fraction makes; 0 for all as one (default: 0)",
    )
    parser.add_argument("--seed", type=int, metavar="N", help="data.seed of those parts (default: 0)")
    parser.add_argument("--cache_dir", metavar="FOLDER", help="data.cache_dir (default: the usual cache)")
    add_reading(parser)
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.set_defaults(action=run)


def run(options: argparse.Namespace) -> int:
    """Encode and print."""
    return _encode_files(options) if options.files else _encode_text(options)


def _encode_text(options: argparse.Namespace) -> int:
    from insight.data.tokenizers import load_tokenizer

    for name in _OF_FILES:
        if getattr(options, name) is not None:
            raise ConfigError(f"--{name} has no meaning for a text", "name --files, or leave it out")
    tokenizer = load_tokenizer(options.tokenizer)
    ids = tokenizer.encode(read_standard_input() if options.text is None else options.text)
    if options.json:
        tokens = [tokenizer.token_bytes(index).decode("utf-8", errors="backslashreplace") for index in ids]
        print(json.dumps({"ids": ids, "tokens": tokens}))
    else:
        print(*ids)
    return 0


def _encode_files(options: argparse.Namespace) -> int:
    from insight.data.preparation import Preparation, TextFiles, default_cache_dir
    from insight.data.tokenizers import load_tokenizer

    if options.text is not None:
        raise ConfigError(f"{options.text!r} beside --files", "give a text or files")
    files = TextFiles(
        options.files,
        None,
        None,
        None,
        options.text_field,
        options.validation_fraction or 0.0,
        options.seed or 0,
        invalid_text=options.invalid_text,
    )
    cache_dir = Path(options.cache_dir).expanduser() if options.cache_dir else default_cache_dir()
    preparation = Preparation(
        files, load_tokenizer(options.tokenizer), cache_dir, executor=_executor(options)
    )
    stores: list[dict[str, Any]] = []
    for split in ("train", "validation"):
        if preparation.has(split):
            store = preparation.store(split)
            stores.append(
                {
                    "split": split,
                    "path": str(store.path),
                    "documents": store.num_documents,
                    "bytes": store.num_bytes,
                    "tokens": store.num_tokens,
                }
            )
    if options.json:
        print(json.dumps({"stores": stores}))
    else:
        for one in stores:
            print(f"{one['path']}  {one['documents']:,} documents, {one['tokens']:,} tokens")
    return 0


def _executor(options: argparse.Namespace) -> ExecutorConfig:
    from insight.data.encoding.executors import DaskCluster, InProcess, LocalProcesses

    kind = options.executor or ("dask" if options.scheduler else "local")
    if kind != "dask" and options.scheduler:
        raise ConfigError(f"--scheduler with --executor {kind}", "use --executor dask")
    if kind == "in_process" and options.num_workers is not None:
        raise ConfigError("--num_workers with --executor in_process", "use --executor local")
    if kind == "dask":
        return DaskCluster(options.scheduler, options.num_workers)
    return LocalProcesses(options.num_workers) if kind == "local" else InProcess()
