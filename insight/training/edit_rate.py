"""The edits of TER (Snover et al. 2006), equal to sacrebleu's, with all shifts of a round measured together.

sacrebleu measures one shift after another in Python, which takes half a minute for 900 sentences.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from sacrebleu.metrics import lib_ter

_Distances = npt.NDArray[np.int32]
_UNREACHED = 1 << 28  # more than any distance, and far from the end of int32


def count_edits(translation: Sequence[str], reference: Sequence[str]) -> tuple[int, int]:
    """Shifts, insertions, deletions and substitutions that turn a translation into the reference.

    Args:
        translation: Words of the translation.
        reference: Words of the reference.

    Returns:
        The number of edits, and that of the words of the reference.
    """
    words, goal = list(translation), list(reference)
    if not words or not goal:
        return len(words) + len(goal), len(goal)
    numbers = {word: number for number, word in enumerate(dict.fromkeys([*words, *goal]))}
    places = np.array([numbers[word] for word in goal], dtype=np.int32)
    num_shifts, num_checked = 0, 0
    while True:
        rows = _rows(np.array([[numbers[word] for word in words]], dtype=np.int32), places)[:, 0]
        shifts = _shifts(words, goal, rows.tolist())
        num_checked += len(shifts)
        if not shifts or num_checked >= lib_ter._MAX_SHIFT_CANDIDATES:
            break
        shifted = [lib_ter._perform_shift(words, *shift) for shift in shifts]
        coded = np.array([[numbers[word] for word in one] for one in shifted], dtype=np.int32)
        saved = int(rows[-1, -1]) - _rows(coded, places)[-1, :, -1]
        # The longest and then the leftmost shift of those that save most, as in Tercom.
        best = max(
            range(len(shifts)),
            key=lambda index: (saved[index], shifts[index][1], -shifts[index][0], -shifts[index][2]),
        )
        if saved[best] <= 0:
            break
        words = shifted[best]
        num_shifts += 1
    return num_shifts + int(rows[-1, -1]), len(goal)


def _shifts(words: list[str], goal: list[str], rows: list[list[int]]) -> list[tuple[int, int, int]]:
    """Start, length and target of every shift that is worth a try, until there are too many."""
    align, goal_errors, word_errors = lib_ter.trace_to_alignment(_trace(words, goal, rows))
    found: list[tuple[int, int, int]] = []
    for start, start_in_goal, length in lib_ter._find_shifted_pairs(words, goal):
        # Both places are wrong now, and the target lies outside of what is shifted.
        if not (
            any(word_errors[start : start + length])
            and any(goal_errors[start_in_goal : start_in_goal + length])
        ):
            continue
        if start <= align[start_in_goal] < start + length:
            continue
        before = -1
        for place in range(start_in_goal - 1, start_in_goal + length):
            target = 0 if place == -1 else align[place] + 1
            if target != before:
                found.append((start, length, target))
                before = target
        if len(found) >= lib_ter._MAX_SHIFT_CANDIDATES:
            break
    return found


def _rows(sentences: npt.NDArray[np.int32], goal: npt.NDArray[np.int32]) -> _Distances:
    """Edit distances between all beginnings, ``(words + 1, sentences, words of the goal + 1)``.

    Only cells near the diagonal are computed, as in Tercom; the band is that of sacrebleu.
    """
    num_sentences, num_words = sentences.shape
    ratio = len(goal) / num_words
    reach = lib_ter._BEAM_WIDTH
    if reach < ratio / 2:
        reach = math.ceil(ratio / 2 + reach)
    rows = np.full((num_words + 1, num_sentences, len(goal) + 1), _UNREACHED, dtype=np.int32)
    steps = np.arange(len(goal) + 1, dtype=np.int32)
    rows[0] = steps
    costs = (sentences.T[:, :, None] != goal).astype(np.int32)
    for index in range(1, num_words + 1):
        middle = math.floor(index * ratio)
        start = max(0, middle - reach)
        stop = len(goal) + 1 if index == num_words else min(len(goal) + 1, middle + reach)
        above = rows[index - 1]
        row = above[:, start:stop] + 1  # a deletion
        first = max(start, 1)  # nothing stands to the left of the first column
        np.minimum(
            row[:, first - start :],
            above[:, first - 1 : stop - 1] + costs[index - 1][:, first - 1 : stop - 1],
            out=row[:, first - start :],
        )
        # An insertion comes from the left: the least of all cells there, each with its way to here.
        row -= steps[start:stop]
        np.minimum.accumulate(row, axis=1, out=row)
        row += steps[start:stop]
        rows[index, :, start:stop] = row
    return rows


def _trace(words: list[str], goal: list[str], rows: list[list[int]]) -> str:
    """Edits from the goal to the words, in sacrebleu's letters; equal ones are chosen in its order."""
    edits = []
    row, column = len(words), len(goal)
    while row or column:
        distance = rows[row][column]
        is_wrong = row > 0 and column > 0 and words[row - 1] != goal[column - 1]
        if row and column and distance == rows[row - 1][column - 1] + is_wrong:
            edits.append(lib_ter._OP_SUB if is_wrong else lib_ter._OP_NOP)
            row, column = row - 1, column - 1
        elif row and distance == rows[row - 1][column] + 1:
            edits.append(lib_ter._OP_INS)  # seen from the goal
            row -= 1
        else:
            edits.append(lib_ter._OP_DEL)
            column -= 1
    return "".join(reversed(edits))
