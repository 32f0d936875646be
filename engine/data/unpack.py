"""A downloaded archive, checked and unpacked so that nothing lands outside its folder and nothing half-done stays."""

from __future__ import annotations

import errno
import shutil
import stat
import unicodedata
import zipfile
from collections.abc import Callable
from pathlib import Path, PureWindowsPath

from ndissect.engine.machine.zips import UNREADABLE, open_zip
from ndissect.store.errors import NDError
from ndissect.store.files import new_folder, remedy
from ndissect.store.regular import NotRegular, open_regular

#: What a Broden archive must hold, in its one folder or at its root.
EXPECTED = ("index.csv", "label.csv", "category.csv", "images/")

# Photographs and PNG maps hardly shrink in an archive; only a bomb grows beyond these.
_MOST_GROWTH = 20
_MOST_ANYWAY = 64 * 2**20
# File systems take 255 bytes a name, and 4096 a path, of which some is the cache's.
_LONGEST_NAME, _LONGEST_PATH = 255, 2000
# Broden's archives list about 300,000 files, in 130 bytes each.
_LONGEST_LIST = 128 << 20
_BLOCK = 4096  # what a small file takes on a disk
_PIECE = 2**20

Progress = Callable[[str, int, int | None], None]


class BadArchive(NDError):
    """An archive that is damaged, unsafe or not what it should be."""


def unpack(archive: Path, target: Path, progress: Progress | None = None) -> None:
    """Unpack the data set in the zip file ``archive`` as the folder ``target``, which appears whole or not at all.

    Every member is read to its end and its CRC compared before the folder gets its name. Refused with BadArchive:
    members outside the folder, links, encrypted members, a declared size out of all proportion, a stream that is
    not what is declared, damage, and an archive without the tables of a data set. ``progress`` receives ("unpack",
    bytes done, bytes in all).
    """
    scratch: Path | None = None
    try:
        with open_regular(archive) as file, open_zip(file, _LONGEST_LIST) as source:
            members = _plan(source, archive)
            total = sum(info.file_size for info, _ in members)
            require_space(target.parent, total + _BLOCK * len(members), f"unpack {archive.name}")
            scratch = new_folder(target, 0o700)
            _extract(source, members, scratch / target.name, total, progress)
        (scratch / target.name).rename(target)
    except UNREADABLE as error:
        what = "is damaged" if isinstance(error, zipfile.BadZipFile) else "cannot be unpacked"
        raise BadArchive(f"{archive} {what}: {str(error)[:300] or type(error).__name__}") from error
    except OSError as error:
        if error.errno == errno.EINVAL and not isinstance(error, NotRegular):  # a place before the file's beginning
            raise BadArchive(f"{archive} is damaged: it says that a member lies outside of it") from error
        raise NDError(
            f"{archive} could not be unpacked into {target.parent}: {error.strerror or error}", _hint(error)
        ) from error
    finally:
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)


def _hint(error: OSError) -> str:
    """What to do about an archive that is sound and yet could not be unpacked."""
    if isinstance(error, NotRegular):
        return "Put the archive itself there, or remove it and try again to download it"
    what = remedy(error, "choose another folder with ND_CACHE")
    return f"The archive is kept: {what}; then try again"


def require_space(folder: Path, needed: int, purpose: str) -> None:
    """NDError where the disk of ``folder`` has fewer than ``needed`` bytes free."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        what = f"To {purpose} takes about {gigabytes(needed)}, {folder} has {gigabytes(free)} free"
        raise NDError(what, "Free some space, or choose another folder with the environment variable ND_CACHE")


def gigabytes(size: int) -> str:
    """``size`` bytes for people."""
    return f"{size / 1e9:.1f} GB" if size >= 5e7 else f"{size / 1e6:.1f} MB"


def _plan(source: zipfile.ZipFile, archive: Path) -> list[tuple[zipfile.ZipInfo, tuple[str, ...]]]:
    """The members to write, each with its path below the data set's folder; BadArchive for what must not be written."""
    members = source.infolist()
    for info in members:
        fault = _member_fault(info)
        if fault:
            raise BadArchive(f"{archive} is refused: its member {shown(info.filename)} {fault}")
    total = sum(info.file_size for info in members)
    if total > _MOST_GROWTH * archive.stat().st_size + _MOST_ANYWAY:
        size = archive.stat().st_size
        raise BadArchive(f"{archive} is refused: {gigabytes(size)} would unpack to {gigabytes(total)}")
    names = [info.filename for info in members]
    top = next(
        (n for n in sorted(names, key=len) if n.count("/") <= 1 and n.split("/")[-1] == "index.csv"), "index.csv"
    )
    prefix = top[: -len("index.csv")]
    files = {info.filename for info in members if not info.is_dir()}
    missing = [e for e in EXPECTED if not (prefix + e in files or _holds_folder(files, prefix, e))]
    if missing:
        raise BadArchive(f"{archive} is no Broden archive: it holds no {' and no '.join(missing)}")
    inside = [(info, tuple(info.filename[len(prefix) :].split("/"))) for info in members if not info.is_dir()]
    inside = [(info, parts) for info, parts in inside if info.filename.startswith(prefix)]
    fault = _clash([parts for _, parts in inside])
    if fault:
        raise BadArchive(f"{archive} is refused: it holds {fault}")
    return inside


def _holds_folder(files: set[str], prefix: str, expected: str) -> bool:
    return expected.endswith("/") and any(name.startswith(prefix + expected) for name in files)


def _clash(paths: list[tuple[str, ...]]) -> str:
    """What cannot lie side by side on every system; empty where all can.

    Some file systems take names that differ in case alone for the same name.
    """
    alike = [tuple(unicodedata.normalize("NFC", part).casefold() for part in parts) for parts in paths]
    files = set(alike)
    if len(files) < len(alike):
        return "two members of one name"
    folders = {parts[:i] for parts in files for i in range(1, len(parts))}
    return "a file and a folder of one name" if files & folders else ""


def shown(name: str) -> str:
    """The name of a member for people, cut where it is too long to be read."""
    return repr(name if len(name) <= 80 else f"{name[:77]}...")


def _member_fault(info: zipfile.ZipInfo) -> str:
    """Why a member must not be written; empty where it may."""
    name, windows = info.filename, PureWindowsPath(info.filename)
    kind = stat.S_IFMT(info.external_attr >> 16)
    # zipfile cuts names at a NUL byte and turns \ into / on some systems: look at what the archive says.
    if windows.drive or windows.root or "\\" in info.orig_filename or "\0" in info.orig_filename:
        return "has an absolute or foreign path"
    if ".." in name.split("/"):
        return "leads out of the folder"
    if any(part in (".", "") for part in name.removesuffix("/").split("/")):
        return "has a path with an empty part"
    if len(name.encode()) > _LONGEST_PATH or any(len(part.encode()) > _LONGEST_NAME for part in name.split("/")):
        return f"has a name of {len(name)} characters, which no disk takes"
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link" if kind == stat.S_IFLNK else "is a special file"
    if info.flag_bits & 1:
        return "is encrypted"
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "is compressed in an unusual way"
    return ""


def _extract(
    source: zipfile.ZipFile,
    members: list[tuple[zipfile.ZipInfo, tuple[str, ...]]],
    folder: Path,
    total: int,
    progress: Progress | None,
) -> None:
    done = 0
    made: set[Path] = set()
    for info, parts in members:
        path = folder.joinpath(*parts)
        if path.parent not in made:
            path.parent.mkdir(parents=True, exist_ok=True)
            made.add(path.parent)
        with source.open(info) as packed, path.open("xb") as plain:
            written = 0
            # zipfile stops at the declared size and then compares the CRC, so a false size cannot fill the disk.
            while piece := packed.read(_PIECE):
                plain.write(piece)
                written += len(piece)
        if written != info.file_size:
            raise zipfile.BadZipFile(f"{shown(info.filename)} holds {written} bytes, {info.file_size} are declared")
        done += written
        if progress:
            progress("unpack", done, total)
