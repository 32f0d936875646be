"""Weights in several files, which an index lists, as ``model.safetensors.index.json`` does."""

from __future__ import annotations

import json
from pathlib import Path

from ndissect.store.errors import NDError
from ndissect.store.files import human_bytes
from ndissect.store.regular import read_regular

_LONGEST_INDEX, _MOST_FILES = 64 << 20, 1_000


def is_index(head: bytes, path: Path) -> bool:
    """Whether the file with these first bytes lists others that have the weights."""
    return head.lstrip().startswith(b"{") and path.suffix == ".json"


def read_index(path: Path) -> dict[str, list[str]]:
    """The names of weights by the file beside the index that has them; NDError where it is no such index."""
    try:
        places = json.loads(read_regular(path, _LONGEST_INDEX))["weight_map"]
        files: dict[str, list[str]] = {}
        for key, file in places.items():
            if not isinstance(file, str) or not _is_beside(file):
                raise ValueError(f"{file!r:.60} is no name of a file beside it")
            files.setdefault(file, []).append(key)
        if not files or len(files) > _MOST_FILES:
            raise ValueError(f"it lists {len(files):,} files")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise NDError(
            f"{path} is no index of weights: {str(error)[:200]}",
            "Give a .safetensors file, a state dict saved by torch.save, or the index of several such files",
        ) from error
    return files


def _is_beside(file: str) -> bool:
    """Whether this is a name of a file with weights in the folder of the index, and of no other index."""
    return Path(file).name == file and "\\" not in file and not file.startswith(".") and not file.endswith(".json")


def check_total(path: Path, files: list[str], most: int) -> None:
    """NDError where the files that the index at ``path`` lists have more bytes than ``most``, or are not there."""
    missing = [file for file in files if not (path.parent / file).is_file()]
    if missing:
        raise NDError(
            f"{path} lists {len(files)} files, and {len(missing)} are not beside it: {', '.join(missing[:6])}",
            "Copy or download them too",
        )
    total = sum((path.parent / file).stat().st_size for file in files)
    if total > most:
        raise NDError(
            f"the files of {path} have {human_bytes(total)}, at most {human_bytes(most)} are read",
            f"--max-weights {-(-total // 10**9)}GB reads it, where you trust its source",
        )
