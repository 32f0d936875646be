"""Shards, parts of one dissection that ran by themselves, put together: thresholds first, then the tally.

``nd dissect --shard 2/8`` leaves a folder (ndissect.engine.run.saved_run) with what it gathered of its images.
Everything in it adds up, so the order of shards does not matter; only the labels are read again, since masks wait for
the thresholds.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ndissect.engine.data.dataset import ConceptDataset
from ndissect.engine.geometry.layer_geometry import read_geometries
from ndissect.engine.machine.memory import Budget
from ndissect.engine.machine.progress import Phase, Progress
from ndissect.engine.machine.sealed import Damaged
from ndissect.engine.machine.state import State, within
from ndissect.engine.machine.timing import Clock
from ndissect.engine.measures.peaks import Peaks
from ndissect.engine.measures.quantile import merged
from ndissect.engine.measures.top import TopTracker
from ndissect.engine.passes.grouping import group_images
from ndissect.engine.passes.loader import Loader
from ndissect.engine.run.conclusion import conclude
from ndissect.engine.run.data_survey import DataSummary, DataSurvey
from ndissect.engine.run.evidence_plan import plan
from ndissect.engine.run.mask_counter import MaskCounter
from ndissect.engine.run.outputs import OUTPUTS, Outputs, with_outputs
from ndissect.engine.run.resume import taking_up
from ndissect.engine.run.saved_run import SavedRun, differences, read_key
from ndissect.store.errors import NDError, WrongUse
from ndissect.store.model import Dissection
from ndissect.store.paused import demand_ours, read_paused, shard_folder
from ndissect.store.protocol import Protocol


@dataclass(frozen=True)
class Shard:
    """Part ``number`` of ``of``, 1 to n, of a dissection: the images that it takes."""

    number: int
    of: int

    def part(self, images: int) -> range:
        """The images of this shard."""
        return range(images * (self.number - 1) // self.of, images * self.number // self.of)

    def folder(self, target: Path) -> Path:
        """Where the shard of the store ``target`` lies."""
        return shard_folder(target, str(self))

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"


def parse_shard(text: str) -> Shard:
    """``2/8`` -> part 2 of 8; WrongUse for anything else."""
    number, _, of = text.partition("/")
    if number.isdigit() and of.isdigit() and 1 <= int(number) <= int(of):
        return Shard(int(number), int(of))
    raise WrongUse(f"--shard '{text}' is no part", "write 1/8 for the first of eight, to 8/8")


@dataclass(frozen=True)
class Finished:
    """A shard that is whole: where it lies, what it is of, what was said of it, its record, and what it gathered."""

    saved: SavedRun
    key: dict[str, Any]
    about: dict[str, Any]
    record: dict[str, Any]
    state: State

    @property
    def folder(self) -> Path:
        return self.saved.folder

    def images(self, of: int) -> range:
        """The images that it took, of so many."""
        return parse_shard(str(self.key["shard"])).part(of)


def open_shards(folders: Sequence[Path]) -> list[Finished]:
    """The shards in ``folders``, all of one dissection, each there once; NDError or WrongUse says what is wrong."""
    shards = [_open(folder) for folder in folders]
    first = shards[0]
    for shard in shards[1:]:
        a, b = ({**s.key, "shard": ""} for s in (first, shard))
        if differ := differences(a, b):
            raise WrongUse(f"{shard.folder.name} is of another dissection than {first.folder.name}: {differ}", "")
    known = [parse_shard(str(s.key["shard"])) for s in shards]
    odd = next((i for i, shard in enumerate(known) if shard.of != known[0].of), None)
    if odd is not None:
        what = f"{shards[odd].folder.name} is a part of {known[odd].of}, {first.folder.name} of {known[0].of}"
        raise WrongUse(what, "name the shards of one cut: nd merge STORE.shard-*-of-8")
    numbers = sorted(s.number for s in known)
    if len(set(numbers)) < len(numbers):
        twice = next(n for n in numbers if numbers.count(n) > 1)
        raise WrongUse(f"shard {twice}/{known[0].of} was given twice", "each shard counts once")
    missing = [str(n) for n in range(1, known[0].of + 1) if n not in numbers]
    if missing:
        raise WrongUse(f"of {known[0].of} shards these are missing: {', '.join(missing)}", "nd dissect --shard i/n")
    return [shard for _, shard in sorted(zip(numbers, shards, strict=True), key=lambda pair: pair[0])]


def _open(folder: Path) -> Finished:
    if os.path.lexists(folder):
        demand_ours(folder)
    key = read_key(folder) if folder.is_dir() else None
    if key is None or "shard" not in key:
        raise WrongUse(f"{folder} is no shard", "nd dissect --shard i/n makes one")
    saved = SavedRun(folder, key)
    there = saved.load(0)
    if there is None:
        raise _damaged(folder, str(key["shard"]))
    record, state = there
    if "complete" not in record:
        raise NDError(
            f"shard {key['shard']} in {folder} has not ended", "the command that began it goes on where it stopped"
        )
    return Finished(saved, key, record["complete"], record, state)


def _damaged(folder: Path, shard: str) -> NDError:
    began = read_paused(folder)
    again = began.goes_on if began is not None else ""
    return NDError(
        f"what is in {folder} cannot be read: it is damaged",
        f"run the shard again: {again or f'the same nd dissect with --shard {shard}'} --restart",
    )


def merge(
    shards: Sequence[Finished],
    dataset: ConceptDataset,
    *,
    device: torch.device,
    workers: int,
    progress: Progress,
    memory: Budget,
) -> tuple[Dissection, DataSummary, dict[str, float]]:
    """The dissection that the shards are parts of, without provenance; the summary of their data; seconds.

    ``memory``: that evidence may take a part of, as in a run of one process (ndissect.engine.run.evidence_plan).
    NDError where ``dataset`` is not the one that the shards were taken of.
    """
    about = shards[0].about
    if dataset.tables_digest() != shards[0].key["data"]["tables"]:
        raise NDError(
            f"{dataset.root} is not the data set that the shards were taken of", "--data names the folder with it"
        )
    with taking_up(shards[0].saved):
        protocol, geometries = Protocol.from_json(shards[0].key["protocol"]), read_geometries(about["places"])
        clock, loader = Clock(), Loader(dataset, protocol, workers)
        survey = DataSurvey(len(dataset.concepts))
        for shard in shards:
            survey.merge(within(shard.state, "survey"))
        summary = survey.summary(dataset.names)
        progress.plan([Phase("thresholds"), Phase("images"), Phase("tally", summary.images)])
        progress.busy("thresholds")
        with clock.during("thresholds"):
            statistics = [
                merged([within(s.state, f"{i}.quantile") for s in shards], protocol.q) for i in range(len(geometries))
            ]
        tops = []
        for i, geometry in enumerate(geometries):
            tracker = TopTracker(geometry.units, min(int(about["top"]), len(dataset)), geometry.map_size)
            for shard in shards:
                tracker.merge(within(shard.state, f"{i}.top"))
            tops.append(tracker.result())
        evidence = plan(geometries, dataset, about.get("null"), memory, device)
        for note in evidence.notes:
            progress.note(note)
        counter = MaskCounter(
            loader,
            geometries,
            statistics,
            tops,
            device,
            clock,
            progress,
            grouping=group_images(dataset, by_block=evidence.by_block),
            pairings=evidence.pairings,
        )
        has_peaks = evidence.peaks and all("peaks.images" in s.state for s in shards)
        peaks = Peaks(geometries, len(dataset.concepts)) if has_peaks else None
        if peaks:
            for shard in shards:
                peaks.merge(within(shard.state, "peaks"))
        outputs = Outputs.from_state(within(shards[0].state, OUTPUTS), [geometry.units for geometry in geometries])
    progress.busy("images")
    counter.keep_images()
    progress.start("tally", summary.images)
    for shard in shards:
        try:
            for candidates in shard.saved.candidate_files(shard.record, geometries, shard.images(len(dataset))):
                counter.count_candidates(candidates, tell=True)
        except Damaged as e:
            raise _damaged(shard.folder, str(shard.key["shard"])) from e
    return with_outputs(conclude(counter, {}, peaks), outputs), summary, clock.seconds()
