"""A series of networks, each dissected into a store of its own, unless it is dissected already."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ndissect.engine.experiments.series import Member, choose, read_series
from ndissect.engine.machine.console import Console, Stopped
from ndissect.engine.run.data_source import open_named
from ndissect.engine.run.options import Options
from ndissect.engine.run.to_store import dissect_to_store
from ndissect.store.errors import NDError, NotReplaced, WrongUse
from ndissect.store.files import SUFFIX, own_folder, remedy
from ndissect.store.names import safe_name
from ndissect.store.protocol import Protocol
from ndissect.store.reader import Store


@dataclass(frozen=True)
class SeriesPlan:
    """``members`` of a series, compared by ``factor``, which is shown as ``title``; their stores go to ``folder``.

    ``axis``: the title of a plot's axis; ``notes``: what the user should know of the members. ``named``: the folder is
    the user's choice; a link in the place of any other is not followed.
    """

    members: Sequence[Member]
    factor: str
    title: str
    axis: str
    notes: Sequence[str]
    folder: Path
    named: bool

    @property
    def paths(self) -> list[Path]:
        """The stores of the members."""
        return [self.folder / safe_name(member.name, SUFFIX) for member in self.members]


def plan_series(
    given: Sequence[str],
    *,
    network: str | None = None,
    factor: str | None = None,
    only: Sequence[str] = (),
    folder: Path | None = None,
) -> SeriesPlan:
    """The series that ``given`` means (ndissect.engine.experiments.series).

    ``network``: the spec of members that name none; ``factor``: what they are compared by, by default their first;
    ``only``: ``FACTOR=VALUE`` each; ``folder``: of their stores, by default one here that is named after theirs.
    WrongUse for what cannot be read, and for factors and values that there are not.
    """
    series = read_series(given, network, factor)
    numbered = series.numbered
    by, chosen = choose(series.members, factor if numbered is None else None, only)
    title, axis, notes = (numbered.title, numbered.axis, numbered.notes) if numbered else (by, by, ())
    return SeriesPlan(chosen, by, title, axis, notes, folder or _default_folder(given), folder is not None)


def _default_folder(given: Sequence[str]) -> Path:
    path = Path(given[0])
    if len(given) == 1 and os.path.exists(path):  # noqa: PTH110 - Path.exists raises where a name is too long
        return Path(safe_name((path if path.is_dir() else path.absolute().parent).resolve().name, ".series"))
    return Path("series")


def dissect_series(plan: SeriesPlan, options: Options, console: Console) -> list[Path]:
    """The stores of the members, in their order; ``options`` hold for all, but for the network and its weights.

    WrongUse where a store of other work is in the place of one of them; else as a dissection of the member that fails.
    """
    protocol = options.make_protocol()
    _make_folder(plan)
    dataset = open_named(options, console)
    for path in plan.paths:
        _refuse_others(path, protocol, dataset.name)
    for note in plan.notes:
        console.note(note)
    for done, (member, path) in enumerate(zip(plan.members, plan.paths, strict=True)):
        console.tell(f"{done + 1}/{len(plan.members)} {member.name}")
        own = replace(options, network=member.network, weights=member.weights)
        if member.weights is None:
            own = replace(own, partial=False, weights_key=None, weights_prefix=None)
        so_far = f"{done} of {len(plan.members)} networks are dissected"
        try:
            dissect_to_store(own, console, output=path)
        except NotReplaced as e:
            raise WrongUse(f"{path} is of other work: other weights, layers or options", _OTHER_FOLDER) from e
        except Stopped as e:
            e.message += f"; {so_far}"
            raise
        except NDError as e:
            e.message = f"{member.name}: {e.message}"
            e.hint = f"{e.hint.rstrip('. ')}; {so_far}, the same command goes on"
            raise
    return plan.paths


_OTHER_FOLDER = "use another folder: -o, or delete it"


def _make_folder(plan: SeriesPlan) -> None:
    try:
        if plan.named:
            plan.folder.mkdir(parents=True, exist_ok=True)
        else:
            own_folder(plan.folder)
    except OSError as e:
        hint = remedy(e, "choose another with -o/--output")
        raise NDError(f"cannot make the folder {plan.folder}: {e.strerror}", hint) from e


def _refuse_others(path: Path, protocol: Protocol, data: str) -> None:
    """WrongUse where a store of the series is there already, of another protocol or of other images."""
    if not path.exists():
        return
    with Store(path) as store:
        origin = store.provenance.get("data")
        name = origin.get("name") if isinstance(origin, dict) else None
        if store.protocol != protocol:
            differ = f"protocol {store.protocol.describe()}; now {protocol.describe()}"
        elif name != data:
            differ = f"on {name}; now on {data}"
        else:
            return
    raise WrongUse(f"{path} was dissected by other rules: {differ}", _OTHER_FOLDER)
