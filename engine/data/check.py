"""Everything that is wrong with a data set: all of it is read."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from ndissect.engine.data.dataset import at_once
from ndissect.engine.data.formats import open_folder
from ndissect.engine.data.images import BadFile
from ndissect.engine.data.packed import Note


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: ``file``, relative to the data set, and ``what`` is wrong with it."""

    file: str
    what: str

    def __str__(self) -> str:
        return f"{self.file}: {self.what}"


def check_dataset(
    dataset_path: Path,
    progress: Callable[[int, int], None] | None = None,
    workers: int | None = None,
    max_pixels: int | None = None,
    note: Note | None = None,
    *,
    key: str | None = None,
) -> list[Problem]:
    """All problems of a data set, in the order of its tables and images; empty where it is sound.

    Every table is read, every photograph and label map decoded; sizes and numbers must agree with the tables.
    Frequencies and coverages are not recomputed. ``progress`` receives (images done, images in all);
    ``note`` is told what is not as it should be, yet is read all the same; ``key``: of the format, where the folder
    fits several. NDError where the folder is no data set at all.
    """
    problems: list[Problem] = []
    dataset = open_folder(dataset_path, lambda fault: problems.append(_problem(fault)), max_pixels, key=key, note=note)
    pool = ThreadPoolExecutor(at_once(dataset, workers or os.cpu_count() or 1))
    try:
        # Threads are enough: decoding and reading leave Python's lock.
        for done, faults in enumerate(pool.map(lambda i: list(dataset.faults(i)), range(len(dataset))), 1):
            problems += map(_problem, faults)
            if progress:
                progress(done, len(dataset))
    finally:
        pool.shutdown(cancel_futures=True)
    return problems


def first_of_each_kind(problems: Sequence[Problem], most: int = 5) -> list[Problem]:
    """``problems`` in their order, of those that say the same of many files the first ``most`` and how many follow."""
    counts = Counter(problem.what for problem in problems)
    shown: Counter[str] = Counter()
    first = []
    for problem in problems:
        shown[problem.what] += 1
        if shown[problem.what] <= most:
            first.append(problem)
        if shown[problem.what] == most and counts[problem.what] > most:
            first.append(Problem(f"and {counts[problem.what] - most:,} more", problem.what))
    return first


def _problem(fault: BadFile) -> Problem:
    return Problem(fault.file, fault.what)
