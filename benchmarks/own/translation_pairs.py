"""The pairs of configs/translation.yaml as token ids on disk for the peers, and scores of translations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import yaml

from insight.data import BPETokenizerConfig, TranslationDataModule
from insight.training.translation_metrics import score_translations


class BenchmarkPairs:
    """Ids of the training and test pairs of a configuration, with Insight's tokenizer.

    Args:
        config: The YAML file.
        cache: The folder of tokenizer and ids.
    """

    def __init__(self, config: Path, cache: Path) -> None:
        content = yaml.safe_load(config.read_text(encoding="utf-8"))
        options = {**content["data"]["init_args"], "cache_dir": str(cache)}
        options["tokenizer"] = BPETokenizerConfig(**options["tokenizer"]["init_args"])
        self.network = content["model"]["init_args"]["network"]
        self.data = TranslationDataModule(**options)
        self.data.setup("fit")

    def write(self, file: Path) -> None:
        """Write ids and where each sentence ends: ``train_source``, ``train_source_ends`` and so on."""
        arrays = {}
        for split in ("train", "test"):
            stores = self.data.pair_stores(split)
            for side, store in (("source", stores.source), ("target", stores.target)):
                starts = np.asarray(store.document_starts())
                lengths = np.diff(starts)
                arrays[f"{split}_{side}"] = np.asarray(store.pieces(starts[:-1], lengths), dtype=np.int64)
                arrays[f"{split}_{side}_ends"] = np.cumsum(lengths)
        np.savez(file, **arrays)

    def sizes(self) -> dict[str, Any]:
        """The sizes that the peers' networks have as well."""
        encoder, decoder = self.network["encoder"], self.network["decoder"]
        return {
            "vocabulary_size": self.data.vocabulary_size,
            "end_of_text_id": self.data.tokenizer.end_of_text_id,
            "hidden_size": encoder["hidden_size"],
            "num_heads": encoder["attention"]["init_args"]["num_heads"],
            "encoder_layers": encoder["num_layers"],
            "decoder_layers": decoder["num_layers"],
        }

    def score(self, ids: list[list[int]]) -> dict[str, float]:
        """BLEU and chrF++ of translations of the test sources, on detokenized text."""
        references = self.data.preparation.sentences("test")[1]
        texts = [text.strip() for text in self.data.tokenizer.decode_batch(ids)]
        scores = score_translations(texts, references, ("bleu", "chrf"), 1)
        return {name: score.value for name, score in scores.items()}
