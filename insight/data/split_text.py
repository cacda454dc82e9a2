"""The text of one split: its documents, wherever they come from, and how they become a store."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from insight.data.document_sizes import measure_documents
from insight.data.encoding_progress import EncodingProgress
from insight.data.parallel_encoding import Division, encode_in_tasks, text_bytes
from insight.data.sources.decoding import Reading, TextRepairs
from insight.data.sources.files import Source
from insight.data.sources.formats import TextPart
from insight.data.sources.ranges import RangedText
from insight.data.sources.texts import Texts
from insight.data.sources.token_files import read_token_batches
from insight.data.store import StoreWriter, encode_parts
from insight.data.store.executors import ExecutorConfig
from insight.data.tokenizers import BaseTokenizer, EncodedBatch
from insight.data.validation_split import ValidationSplit
from insight.runtime.errors import DataError

AnySource = Source | Texts


@dataclass(frozen=True)
class SplitText:
    """One split.

    Attributes:
        split: Its name.
        sources: What the user named, each content once.
        contents: A hash of each of them.
        reading: How bytes become documents.
        ranged: The same text in ranges of bytes; ``None`` where some of it is no file of text.
        division: Divides the documents into a training and a validation part; ``None`` to take all.
    """

    split: str
    sources: Sequence[AnySource]
    contents: Sequence[str]
    reading: Reading
    ranged: RangedText | None
    division: ValidationSplit | None

    def parts(self, repairs: TextRepairs) -> Iterator[TextPart]:
        """The documents, in parts; ``repairs`` counts what was repaired.

        Raises:
            DataError: The text cannot be read.
        """
        if self.division is None:
            return parts_of(self.sources, self.reading, repairs)
        is_training = self.split == "train"
        return self.division.training(repairs) if is_training else self.division.validation(repairs)

    def write(
        self,
        tokenizer: BaseTokenizer,
        writer: StoreWriter,
        repairs: TextRepairs,
        folder: Path,
        executor: ExecutorConfig,
    ) -> None:
        """Encode it and append it to ``writer``.

        Args:
            tokenizer: Makes the ids.
            writer: Gets them.
            repairs: Counts what was repaired.
            folder: Where tasks may leave their results meanwhile.
            executor: Where text is encoded, if there is enough of it; how decides no byte of the result.

        Raises:
            DataError: The text cannot be read.
        """
        if any(map(holds_tokens, self.sources)):
            self._copy_tokens(tokenizer, writer, repairs)
            return
        title = names_of(self.sources)
        num_workers = _useful_workers(self.ranged, tokenizer, executor) if self.ranged else 0
        if self.ranged is None or not num_workers:
            encode_parts(EncodingProgress(title).watch(self.parts(repairs)), tokenizer, writer)
            return
        contents = {
            source.path: content
            for source, content in zip(self.sources, self.contents, strict=True)
            if isinstance(source, Source)
        }
        divided = None
        # Workers start while this process still looks at the text.
        with executor.build(num_workers) as running:
            if self.division is not None:
                if not self.division.is_measured:
                    self.division.take_sizes(measure_documents(running, self.ranged))
                divided = Division(self.division.division, is_validation=self.split != "train")
            encode_in_tasks(
                running, self.ranged, contents, tokenizer, writer, folder, title, repairs, divided
            )

    def _copy_tokens(self, tokenizer: BaseTokenizer, writer: StoreWriter, repairs: TextRepairs) -> None:
        if self.division is not None:
            raise DataError(
                f"{self.split}_files: no part can be set aside of files that hold token ids",
                "name validation_files, or set validation_fraction to 0",
            )
        lengths = tokenizer.token_byte_lengths()
        for source in self.sources:
            if isinstance(source, Source) and source.holds_tokens:
                batches = read_token_batches(
                    source.path,
                    source.name,
                    source.format,
                    tokenizer.vocabulary_size,
                    tokenizer.end_of_text_id,
                )
                for ids, offsets, continues in batches:
                    num_bytes = int(lengths[ids].sum())
                    writer.append(EncodedBatch(ids, offsets), num_bytes, continues=continues)
            else:
                encode_parts(source.parts(self.reading, repairs), tokenizer, writer)


def _useful_workers(text: RangedText, tokenizer: BaseTokenizer, executor: ExecutorConfig) -> int:
    """As many as the executor thinks the text is worth; none where it is all in one piece anyway."""
    can_be_cut = tokenizer.boundaries is not None
    num_pieces = sum(can_be_cut or not each.begins_inside for each in text.ranges)
    return min(num_pieces, executor.workers_for(text_bytes(text.ranges))) if num_pieces > 1 else 0


def ranged_text(sources: Sequence[AnySource], reading: Reading) -> RangedText | None:
    """The sources in ranges of bytes; ``None`` where some of it is no file of text."""
    files = [source for source in sources if isinstance(source, Source) and not source.holds_tokens]
    return RangedText(files, reading) if len(files) == len(sources) else None


def parts_of(sources: Sequence[AnySource], reading: Reading, repairs: TextRepairs) -> Iterator[TextPart]:
    """The documents of all sources, in parts.

    Raises:
        DataError: One of them cannot be read.
    """
    for source in sources:
        yield from source.parts(reading, repairs)


def holds_tokens(source: AnySource) -> bool:
    """Whether it is a file of token ids."""
    return isinstance(source, Source) and source.holds_tokens


def names_of(sources: Sequence[AnySource]) -> str:
    """The sources in a message: the first three, and how many more."""
    names = ", ".join(source.name for source in sources[:3])
    return names if len(sources) <= 3 else f"{names} and {len(sources) - 3} more"
