"""Translates test sentences by Insight with the weights that the peers have as MarianMT's."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from benchmarks.own.translation_pairs import BenchmarkPairs
from benchmarks.peers.protocol import print_result
from benchmarks.peers.translating import add_translating, chosen_batches, measure, sources
from insight.api.translate import open_translator
from insight.generation import (
    CTranslate2Length,
    CurrentLengthBound,
    MeanLogProbability,
    SearchSettings,
)
from insight.generation.translator import TranslationSettings
from insight.runtime.hardware import flush_denormals

RULES = {
    "exact": (MeanLogProbability(), None),
    "transformers": (MeanLogProbability(), CurrentLengthBound()),
    "ctranslate2": (CTranslate2Length(), None),
}


def main() -> None:
    """Translate and print the time and the ids."""
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    flush_denormals()
    pairs = BenchmarkPairs(arguments.config, arguments.cache)
    texts = pairs.data.preparation.sentences("test")[0]
    translator = open_translator(arguments.model)
    rule, stop = RULES[arguments.rule]
    settings = TranslationSettings(
        SearchSettings(arguments.beam, 1, rule, stop),
        max_length_factor=0.0,
        max_length_offset=arguments.longest,
        batch_tokens=10**6,
        batch_size=arguments.batch,
    )
    batches = chosen_batches(arguments.pairs, arguments.sentences, arguments.batch)
    ids = sources(arguments.pairs)
    if any(translator.source_ids(texts[index]) != ids[index] for batch in batches for index in batch):
        raise SystemExit("the peers' ids are not those of the sentences: delete the output and begin anew")

    def translate(sentences: list[str]) -> list[list[int]]:
        found = translator.translate(sentences, settings)
        return [list(one.hypotheses[0][1].token_ids) for one in found]

    print_result(measure(translate, [[texts[index] for index in batch] for batch in batches]))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rule", choices=RULES, required=True)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True, help="the folder of the tokenizer")
    add_translating(parser)
    return parser.parse_args()


if __name__ == "__main__":
    main()
