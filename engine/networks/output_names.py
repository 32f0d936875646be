"""What the outputs of a network are called, by whoever says so first: a file of the user's, or the network."""

from __future__ import annotations

from pathlib import Path

from ndissect.engine.data.output_names import WRITTEN, OutputNames, read_output_names
from ndissect.engine.networks.resolve import Network
from ndissect.store.effects import Classes
from ndissect.store.errors import WrongUse

#: Who names outputs that have numbers alone.
NUMBERS = "their numbers"


def class_names_of(network: Network, file: Path | None = None, outputs: int | None = None) -> Classes:
    """The names of the ``outputs`` of ``network``: those in ``file``, else its own, else numbers.

    ``outputs``: how many there are; where that is not known, nothing is compared with it, and a network that nobody
    names has no names. WrongUse where a file, this one or that with which the network was loaded, names another number
    of outputs, and NDError where it cannot be read; names of the network's own that are too many or too few are not
    used.
    """
    return named_outputs(network, file, outputs)[0]


def named_outputs(network: Network, file: Path | None, outputs: int | None) -> tuple[Classes, OutputNames]:
    """The same, and beside it what else the outputs may be called."""
    if file is not None:
        named = read_output_names(file)
        if outputs not in (None, len(named.names)):
            raise _other_count(network, str(file), len(named.names), outputs)
        return Classes(named.names, file.name), named
    if outputs is not None and network.named_by != Network.named_by and len(network.classes) != outputs:
        raise _other_count(network, network.named_by, len(network.classes), outputs)
    if network.classes and outputs in (None, len(network.classes)):
        return Classes(network.classes, network.named_by), OutputNames(network.classes)
    numbers = tuple(map(str, range(outputs or 0)))
    return Classes(numbers, NUMBERS), OutputNames(numbers)


def _other_count(network: Network, file: str, named: int, outputs: int | None) -> WrongUse:
    return WrongUse(f"{file} names {named} outputs, {network.spec} has {outputs}", WRITTEN)
