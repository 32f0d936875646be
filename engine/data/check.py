"""Everything that is wrong with a data set, found by reading all of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ndissect.engine.data.broden import Broden
from ndissect.engine.data.dataset import at_once
from ndissect.engine.data.images import BadFile


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
) -> list[Problem]:
    """All problems of a data set in Broden's format, in the order of its tables and images; empty where it is sound.

    Every table is read, every photograph and label map decoded; sizes must agree with index.csv and every number
    with label.csv. Frequencies and coverages are not recomputed. ``progress`` receives (images done, images in all).
    NDError where the folder is no data set at all.
    """
    problems: list[Problem] = []
    dataset = Broden(dataset_path, lambda fault: problems.append(Problem(fault.file, fault.what)), max_pixels)
    problems += _duplicates(dataset)
    pool = ThreadPoolExecutor(at_once(dataset, workers or os.cpu_count() or 1))
    try:
        # Threads are enough: decoding and reading leave Python's lock.
        for done, found in enumerate(pool.map(lambda i: list(_check_image(dataset, i)), range(len(dataset))), 1):
            problems += found
            if progress:
                progress(done, len(dataset))
    finally:
        pool.shutdown(cancel_futures=True)
    return problems


def _duplicates(dataset: Broden) -> Iterator[Problem]:
    first: dict[str, int] = {}
    for name, row in zip(dataset.names, dataset.rows, strict=True):
        if name in first:
            yield Problem("index.csv", f"row {row}, column image: {name} is already in row {first[name]}")
        first.setdefault(name, row)


def _check_image(dataset: Broden, index: int) -> Iterator[Problem]:
    checks: list[Callable[[], object]] = [partial(dataset.read_image, index)]
    checks += [partial(dataset.check_label, index, *label) for label in dataset.labels_of(index)]
    checks += [partial(dataset.read_map, path) for path in dataset.maps_of(index)]
    checks.append(partial(dataset.check_maps, index))
    for check in checks:
        try:
            check()
        except BadFile as fault:
            yield Problem(fault.file, fault.what)
