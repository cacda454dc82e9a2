"""One vocabulary for two languages, or two: what each language gets of it."""

from __future__ import annotations

import pytest

from insight.data import (
    BPETokenizerConfig,
    ByteTokenizerConfig,
    joint_vocabulary,
    separate_vocabularies,
)
from insight.runtime.errors import ConfigError, TokenizerError

TEXTS = {"en": ["the house and the garden of the house " * 20], "ru": ["дом и сад у дома и сада " * 20]}
CONFIG = BPETokenizerConfig(270)


def test_joint_vocabulary_serves_both() -> None:
    joint = joint_vocabulary(CONFIG, TEXTS)
    assert joint.fingerprint() == CONFIG.build([*TEXTS["en"], *TEXTS["ru"]]).fingerprint()
    assert joint.vocabulary_size == 270
    for (text,) in TEXTS.values():
        assert joint.decode(joint.encode(text)) == text
        assert len(joint.encode(text)) < len(text.encode()) * 0.6


def test_separate_vocabularies_are_those_of_each_alone() -> None:
    separate = separate_vocabularies(CONFIG, {name: iter(texts) for name, texts in TEXTS.items()})
    assert list(separate) == ["en", "ru"]
    for name, tokenizer in separate.items():
        assert tokenizer.fingerprint() == CONFIG.build(TEXTS[name]).fingerprint()
    # Each is shorter on its own language than the other's, and than the joint one of that size.
    joint = joint_vocabulary(CONFIG, TEXTS)
    for name, (text,) in TEXTS.items():
        other = separate["ru" if name == "en" else "en"]
        own = len(separate[name].encode(text))
        assert own <= len(joint.encode(text)) < len(other.encode(text))


def test_what_cannot_work() -> None:
    for build in (joint_vocabulary, separate_vocabularies):
        with pytest.raises(ConfigError, match="at least one language"):
            build(CONFIG, {})
        with pytest.raises(ConfigError, match="ByteTokenizerConfig does not learn"):
            build(ByteTokenizerConfig(), TEXTS)
        with pytest.raises(TokenizerError, match="no text"):
            build(CONFIG, {"en": []})
