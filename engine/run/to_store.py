"""From options to a store: what can be refused is refused before torch is imported, and nothing is run twice."""

from __future__ import annotations

from pathlib import Path

from ndissect.engine.machine import torchrun
from ndissect.engine.machine.console import Console
from ndissect.engine.run.data_source import check_labelling, open_named
from ndissect.engine.run.existing import asked_for
from ndissect.engine.run.options import Options
from ndissect.engine.run.request import Request, Written
from ndissect.store.errors import WrongUse
from ndissect.store.files import check_writable


def dissect_to_store(
    options: Options,
    console: Console,
    *,
    output: Path | None = None,
    force: bool = False,
    restart: bool = False,
    shard: str | None = None,
) -> Written | None:
    """The store of what ``options`` ask for; None for a shard, and for all but the first of several processes.

    ``output``: where it goes, by default a file in the current folder that is named after the network and the data;
    ``force``: replace a file and run again what is there already; ``restart``: throw away what an unfinished run has
    saved; ``shard``: ``2/8`` counts one part of the images alone, for ndissect.engine.run.merged_store. WrongUse and
    NDError say what cannot be done; what ``console`` makes of an interrupt passes through.
    """
    request = Request(options, console, output, force, restart, shard)
    try:
        with console.listening():
            return _carry_out(request)
    except KeyboardInterrupt as e:
        raise console.stopped(e, *request.left_behind()) from None


def _carry_out(request: Request) -> Written | None:
    if request.output is not None:
        check_writable(request.output, 0)
    check_labelling(request.options)
    # A generator draws its own images, and one's own network may say that it is one once it is loaded.
    dataset = None if request.options.may_draw else open_named(request.options, request.console)
    asked = {} if dataset is None else asked_for(request.options, request.protocol, dataset)
    there = None if dataset is None else request.existing(asked)
    if there is not None and request.options.names_its_network:
        return request.already(there)
    if there is None and dataset is not None:
        request.confirm_output()
    if request.shard and torchrun.processes() > 1:
        raise WrongUse("--shard cuts the work into jobs of their own, torchrun shares one", "use one of them")
    from ndissect.engine.run.execution import execute  # noqa: PLC0415 - torch takes seconds to import

    return execute(request, dataset, asked)
