"""Whether two translation models differ by more than chance on the same sentences."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from insight.runtime.errors import CheckpointError, DataError
from insight.runtime.json_files import read_records
from insight.runtime.run_folder import DEFAULT_ROOT, RunFolder, list_runs, run_of_checkpoint

if TYPE_CHECKING:
    from insight.training.translation_metrics import SystemDifference

_FILE = "test.jsonl"


def compare_translations(
    first: str | Path, other: str | Path, num_trials: int = 10_000, num_resamples: int = 1000
) -> dict[str, SystemDifference]:
    """Compare the tests of two runs sentence by sentence, by the files that the tests wrote.

    Args:
        first: The baseline: a run folder, ``<name>`` or ``<name>/<n>`` under ``runs``, a ``.ckpt`` file of a
            run, or a file of translations.
        other: The other one.
        num_trials: Trials of the paired approximate randomisation.
        num_resamples: Resamples of the paired bootstrap.

    Returns:
        Both scores and both p-values by metric (``bleu``, ``chrf``, ``ter``), equal to sacrebleu's.

    Raises:
        CheckpointError: A run has not been tested.
        DataError: The runs were tested on other references.
    """
    baseline = TestedTranslations.read(first, "first")
    system = TestedTranslations.read(other, "other")
    baseline.require_references(system.references, str(other))
    return baseline.differences(system.translations, num_trials, num_resamples)


@dataclass(frozen=True)
class TestedTranslations:
    """The translations of a test with their references.

    Attributes:
        name: The run or file as it was named.
        option: The option that named it, for messages.
        translations: A translation of each sentence.
        references: The reference of each.
    """

    name: str
    option: str
    translations: Sequence[str]
    references: Sequence[str]
    __test__ = False  # pytest would take it for a test

    @classmethod
    def read(cls, name: str | Path, option: str) -> TestedTranslations:
        """Read ``translations/test.jsonl`` of a run.

        Raises:
            CheckpointError: The run has none.
        """
        path = _find(name)
        records = [] if path is None else read_records(path)
        pairs = [(record.get("translation"), record.get("reference")) for record in records]
        texts = [
            (one, reference)
            for one, reference in pairs
            if isinstance(one, str) and isinstance(reference, str)
        ]
        if not texts:
            remedy = f"test it first: insight test --checkpoint {shlex.quote(str(name))}"
            raise CheckpointError("holds no translations of a test", remedy, option=option, value=str(name))
        return cls(str(name), option, [one for one, _ in texts], [reference for _, reference in texts])

    def require_references(self, references: Sequence[str], name: str) -> None:
        """Refuse other references than those of this test.

        Raises:
            DataError: They differ; the first sentence that does is named.
        """
        if list(references) == list(self.references):
            return
        if len(references) != len(self.references):
            problem = f"was tested on {len(self.references)} sentences, {name} on {len(references)}"
        else:
            pairs = zip(references, self.references, strict=True)
            number = next(index for index, (mine, its) in enumerate(pairs) if mine != its)
            problem = f"was tested on other references than {name}: sentence {number + 1} differs"
        raise DataError(problem, "test both on the same test_files", option=self.option, value=self.name)

    def differences(
        self, translations: Sequence[str], num_trials: int = 10_000, num_resamples: int = 1000
    ) -> dict[str, SystemDifference]:
        """How other translations of the same sentences differ from these."""
        from insight.training.translation_metrics import ScoredTranslations

        baseline, other = (
            ScoredTranslations(texts, self.references) for texts in (self.translations, translations)
        )
        return baseline.compare(other, num_trials, num_resamples)


def _find(name: str | Path) -> Path | None:
    path = Path(name)
    if not path.exists():
        path = DEFAULT_ROOT / path
    if path.suffix == ".ckpt" and (run := run_of_checkpoint(path)):
        path = run.path
    if path.is_file():
        return path
    folders = (RunFolder(path), *reversed(list_runs(path, "")))
    return next((file for run in folders if (file := run.translations / _FILE).is_file()), None)
