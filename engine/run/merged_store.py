"""From shards to a store: the one that a single process would have written."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ndissect.engine.data.dataset import ConceptDataset
from ndissect.engine.data.made_labels import LabelsMade, MadeLabels
from ndissect.engine.data.samples import LabelledSamples
from ndissect.engine.machine.console import Console
from ndissect.engine.machine.device import choose_device
from ndissect.engine.machine.memory import budget
from ndissect.engine.machine.state import within
from ndissect.engine.run.data_source import open_data
from ndissect.engine.run.data_survey import DataSurvey
from ndissect.engine.run.from_store import recorded_options
from ndissect.engine.run.merge import Finished, merge, open_shards
from ndissect.engine.run.options import Options
from ndissect.engine.run.provenance import skipped
from ndissect.store.errors import NDError
from ndissect.store.protocol import Protocol
from ndissect.store.writer import write_store


def _demand_kept(labelled: MadeLabels, shards: Sequence[Finished]) -> MadeLabels:
    """``labelled`` with the labels that the shards have made of it; NDError where some of them are not there."""
    labelled.keep_in(*(shard.saved.labels_file for shard in shards))
    for shard in shards:
        survey = DataSurvey(len(labelled.concepts))
        survey.merge(within(shard.state, "survey"))
        unreadable = {number for number, _ in survey.bad}
        if any(n not in unreadable and labelled.kept(n) is None for n in shard.images(len(labelled))):
            raise NDError(
                f"labels in {shard.folder} cannot be read: they are damaged", "run the shard again with --restart"
            )
    return labelled


def _samples(
    about: dict[str, Any], folder: Path, protocol: Protocol, options: Options, console: Console
) -> LabelledSamples:
    """The samples that shards are of, drawn anew by their generator, whose top ones are shown in the store."""
    from ndissect.engine.run.generated import open_samples  # noqa: PLC0415 - other shards need no network
    from ndissect.engine.run.network_loader import network_loader  # noqa: PLC0415 - likewise

    opened = recorded_options(about, folder, Options(device=options.device))
    grid = "label" if protocol.grid is None else "x".join(map(str, protocol.grid))
    opened = replace(opened, generator=True, data=None, grid=grid)
    return open_samples(opened, network_loader(opened)(), protocol, choose_device(options.device), console).dataset


def merge_to_store(
    folders: Sequence[Path],
    target: Path,
    options: Options,
    console: Console,
    *,
    data: Path | None = None,
    keep: bool = False,
) -> None:
    """Put the shards in ``folders`` together into the store ``target``, and remove them unless ``keep``.

    Of ``options`` the machine and the limits count; ``data``: the data set's folder, where it has moved since. WrongUse
    and NDError say which shards are missing or damaged, and which data set is not theirs.
    """
    began = time.time()
    shards = open_shards(folders)
    about: dict[str, Any] = shards[0].about["provenance"]
    made = shards[0].key.get("labels")
    protocol = Protocol.from_json(shards[0].key["protocol"])
    dataset: ConceptDataset
    if isinstance(about.get("generator"), dict):
        dataset = _demand_kept(_samples(about, shards[0].folder, protocol, options, console), shards)
    else:
        dataset = open_data(
            data or Path(about["data"]["path"]),
            console.note,
            options.max_pixels,
            key=about["data"].get("format"),
            grid=protocol.grid,
            unlabelled=bool(made),
        )
        if made:
            dataset = _demand_kept(MadeLabels(dataset, LabelsMade.from_json(made)), shards)
    with console.progress() as progress:
        device = choose_device(options.device)
        dissection, survey, seconds = merge(
            shards,
            dataset,
            device=device,
            workers=options.workers,
            progress=progress,
            memory=budget(options.memory, device),
        )
    runs = [dict(shard.about["provenance"]["run"]) for shard in shards]
    about["data"] |= {"used": survey.images, "skipped": skipped(survey), "content_digest": survey.digest}
    took = sum(float(run["elapsed"]) for run in runs) + time.time() - began
    marks = [mark for shard in shards for mark in shard.about["provenance"].get("marks", [])]
    about["marks"] = [mark for i, mark in enumerate(marks) if mark not in marks[:i]]
    about["run"] |= {"shards": runs, "merged_by": console.command, "seconds": seconds, "elapsed": round(took, 3)}
    write_store(target, replace(dissection, provenance=about))
    if not keep:
        for shard in shards:
            shard.saved.remove()
