"""The corpora that travel inside the package: list them, find their files, read them."""

from insight.data.corpora.embedded import corpus_path, list_corpora, read_corpus

__all__ = ["corpus_path", "list_corpora", "read_corpus"]
