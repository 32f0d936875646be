"""Loading from Hugging Face's hub by the libraries that keep their own caches there; it is asked once, and told once.

Those libraries ask again and again, for minutes, where there is no network. Here the hub is asked one time whether it
can be reached; where it cannot, they are given what was downloaded before, and nothing else.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from ndissect.engine.networks.lfs import refuse_pointers
from ndissect.store.errors import NDError, WrongUse

_PATIENCE = 10


def optional_library(name: str, spec: str) -> ModuleType:
    """The library ``name``, which an extra of that name installs.

    Only an installed library counts, so that no file of the user's that is called like it is run. WrongUse, with the
    command that installs it, where it is not installed; NDError where such a file hides it.
    """
    command = f"pip install 'ndissect[{name}]'"
    missing = WrongUse(f"{spec} needs {name}, which is not installed", command)
    try:
        importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        raise missing from None
    origin = getattr(importlib.util.find_spec(name), "origin", None)
    if origin is not None and Path(origin).name != "__init__.py":
        raise NDError(f"{spec} needs {name}, which {origin} hides", "Rename that file, or take its folder off the path")
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name == name:
            raise missing from error
        raise NDError(f"{spec} needs {name}, which needs {error.name}, which is not installed", command) from error


def checked_folder(path: Path, spec: str) -> Path:
    """``path``, a folder with a saved network; WrongUse where it is none, NDError for Git LFS pointers in it."""
    if not os.path.isdir(path):  # noqa: PTH112 - Path.is_dir raises where a name is too long
        what = "a file" if os.path.exists(path) else "not there"  # noqa: PTH110 - likewise
        raise WrongUse(f"{path} is {what}", f"{spec} takes the folder that the network was saved to")
    if not (path / "config.json").is_file():
        raise WrongUse(f"{path} has no config.json", f"{spec} takes the folder that the network was saved to")
    refuse_pointers(path)
    return path


@contextmanager
def loading(spec: str, *, online: bool) -> Iterator[None]:
    """For the block, in which a library loads the network ``spec``; NDError, in one line, for whatever fails there.

    ``online``: whether anything of it may lie on the hub. Warnings and bars of progress are for a terminal alone.
    """
    with _quiet(), _one_try(online) as unreachable:
        try:
            yield
        except NDError:
            raise
        except Exception as error:  # of a library, its dependencies, or code on the hub that it refuses to run
            raise _told(spec, error, unreachable) from error


@contextmanager
def _one_try(online: bool) -> Iterator[str]:
    """For the block libraries are offline where the hub is not reached; gives why it is not, or ""."""
    if not online:
        yield ""
        return
    constants: Any = importlib.import_module("huggingface_hub.constants")
    before = constants.HF_HUB_OFFLINE
    unreachable = "HF_HUB_OFFLINE is set" if before else _why_unreachable(str(constants.ENDPOINT))
    constants.HF_HUB_OFFLINE = bool(unreachable)
    try:
        yield unreachable
    finally:
        constants.HF_HUB_OFFLINE = before


def _why_unreachable(endpoint: str) -> str:
    hub: Any = importlib.import_module("huggingface_hub")
    try:
        hub.get_session().head(endpoint, timeout=_PATIENCE)
    except Exception as error:  # whichever HTTP library it has
        return f"{endpoint} cannot be reached: {_first_line(error)}"
    return ""


def _told(spec: str, error: Exception, unreachable: str) -> NDError:
    names = {type(e).__name__ for e in _chain(error)}
    if names & {"LocalEntryNotFoundError", "OfflineModeIsEnabled"} or (unreachable and isinstance(error, OSError)):
        return NDError(
            f"{spec} is not in the cache, and {unreachable or 'the hub cannot be reached'}", _without_hub(spec)
        )
    if "GatedRepoError" in names:
        return NDError(
            f"{spec} is on the hub for those alone who were granted access", "Ask for it there, then: hf auth login"
        )
    if "RepositoryNotFoundError" in names:
        return NDError(
            f"the hub has no {spec.partition(':')[2]}, or it is private", "Look its OWNER/NAME up; then: hf auth login"
        )
    if "RevisionNotFoundError" in names:
        return NDError(f"the hub has no such revision: {spec}", "Leave out what follows @ for the newest")
    return NDError(
        f"{spec} could not be loaded: {type(error).__name__}: {_first_line(error)}",
        "It is the library's own error: load the network in plain Python to look into it",
    )


def _without_hub(spec: str) -> str:
    """What gives the network ``spec`` where there is no hub: its code is here, or comes from there as well."""
    if spec.startswith("timm:") and "hf-hub:" not in spec:
        name = spec.partition("@")[0]
        return f"Load it once where there is a network; or give a local file: {name} --weights FILE; or use {name}@none"
    saved = "hf:PATH" if spec.startswith("hf:") else "timm:local-dir:PATH"
    return f"Load it once where there is a network, or save it there to a folder: {saved}"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


@contextmanager
def _quiet() -> Iterator[None]:
    """For the block libraries of Hugging Face warn of nothing, and draw their bars on a terminal alone."""
    bars: Any = importlib.import_module("huggingface_hub.utils")
    drawn = not bars.are_progress_bars_disabled()
    if drawn and not sys.stderr.isatty():
        bars.disable_progress_bars()
    try:
        with _errors_alone("huggingface_hub"), _errors_alone("timm"), _errors_alone("transformers"):
            yield
    finally:
        if drawn:
            bars.enable_progress_bars()


@contextmanager
def _errors_alone(name: str) -> Iterator[None]:
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
