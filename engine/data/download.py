"""Broden fetched from its authors' host: resumed, verified, unpacked into the cache.

The archives are about 1 GB each, no checksum of them is published, and the host has been down for months at a time.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import socket
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NoReturn

from ndissect.engine.data.alone import alone
from ndissect.engine.data.names import DOWNLOADS
from ndissect.engine.data.unpack import BadArchive, Progress, gigabytes, require_space, unpack
from ndissect.store.errors import NDError, WrongUse, nearest
from ndissect.store.files import cache_folder, own_file, remedy, remove_left_overs, replacing
from ndissect.store.regular import read_regular

#: Where the authors' scripts fetch Broden from; the environment variable ND_BRODEN_URL overrides it.
BRODEN_URL = "http://netdissect.csail.mit.edu/data"

_PIECE = 2**18
_LARGEST, _MOST_STATE = 16 * 10**9, 64 << 10
_ZIP_START = b"PK\x03\x04"
_RETRY = frozenset({408, 425, 429, 500, 502, 503, 504})
# Beside the archive itself: photographs and maps are compressed already, but small files fill whole disk blocks.
_UNPACKED = 2


@dataclass(frozen=True)
class Patience:
    """How long to try: ``attempts`` in a row that bring nothing new, ``backoff`` seconds after the first and twice as
    many after each further one, at most ``longest``; ``timeout`` seconds of silence end an attempt.
    """

    attempts: int = 5
    backoff: float = 1.0
    longest: float = 30.0
    timeout: float = 30.0


@dataclass(frozen=True)
class _Remote:
    """What a server said of a file. A download goes on only where all of it is the same as before."""

    url: str
    length: int | None
    etag: str
    modified: str


class _Interrupted(Exception):
    """An attempt ended early, for a reason that may pass."""


def download(
    name: str,
    cache: Path | None = None,
    base_url: str | None = None,
    progress: Progress | None = None,
    *,
    notice: Callable[[str], None] | None = None,
    patience: Patience = Patience(),
) -> Path:
    """The folder of data set ``name`` below ``cache`` (default: cache_folder()), fetched if it is not there yet.

    An interrupted download continues where it stopped, in this call or a later one. ``<cache>/<name>.zip``, put there
    by hand, is unpacked instead. ``progress`` receives ("download" or "unpack", bytes done, bytes in all or None),
    ``notice`` a line for each interruption. ``base_url``: default ``$ND_BRODEN_URL``, else BRODEN_URL. NDError says
    what failed and what to do.
    """
    if name not in DOWNLOADS:
        near = nearest(name, list(DOWNLOADS)) or list(DOWNLOADS)
        raise WrongUse(f"There is no data set {name} to download", f"Did you mean {' or '.join(near)}?")
    folder = cache or cache_folder()
    target = folder / name
    if _is_complete(target):
        return target
    if target.exists():
        raise NDError(f"{target} exists but holds no index.csv and label.csv", "Move it away and try again")
    url = f"{(base_url or os.environ.get('ND_BRODEN_URL') or BRODEN_URL).rstrip('/')}/{name}.zip"
    if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
        raise WrongUse(f"{url} is no http or https address", "Correct the environment variable ND_BRODEN_URL")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with alone(folder / f"{name}.lock", f"Another process is downloading to {folder}"):
            if not _is_complete(target):
                _fetch_and_unpack(url, folder, name, _Talk(progress, notice), patience)
    except OSError as error:
        what = remedy(error, "choose another folder with the environment variable ND_CACHE")
        hint = f"What was fetched is kept: {what}; then try again"
        raise NDError(f"{folder} cannot be written: {error.strerror or error}", hint) from error
    return target


@dataclass(frozen=True)
class _Talk:
    progress: Progress | None
    notice: Callable[[str], None] | None


def _is_complete(target: Path) -> bool:
    return (target / "index.csv").is_file() and (target / "label.csv").is_file()


def _fetch_and_unpack(url: str, folder: Path, name: str, talk: _Talk, patience: Patience) -> None:
    given = folder / f"{name}.zip"
    part = folder / f"{name}.zip.part"
    for target in (folder / name, part, _state(part)):
        remove_left_overs(target)
    if given.exists():
        try:
            unpack(given, folder / name, talk.progress)
        except BadArchive as fault:
            raise BadArchive(fault.message, f"Remove {given} and try again to download it") from fault
        return
    _fetch(url, part, talk, patience)
    try:
        unpack(part, folder / name, talk.progress)
    except BadArchive as fault:
        # Kept, it would be taken for a complete download for ever.
        part.unlink()
        _state(part).unlink(missing_ok=True)
        hint = "The file was removed: try again to download it from the start"
        raise BadArchive(f"What came from {url} is of no use. {fault.message}", hint) from fault
    part.unlink()
    _state(part).unlink(missing_ok=True)


def _fetch(url: str, part: Path, talk: _Talk, patience: Patience) -> None:
    """Complete ``part`` from ``url``, over as many connections as it takes."""
    fruitless, most = 0, _size(part)
    while True:
        try:
            _attempt(url, part, talk.progress, patience.timeout)
            return
        except _Interrupted as reason:
            # Only new ground counts: a server that starts over each time and breaks at the same place is no progress.
            fruitless = 0 if _size(part) > most else fruitless + 1
            most = max(most, _size(part))
            if fruitless >= patience.attempts:
                _give_up(url, part, f"{reason}, {fruitless} times in a row")
            wait = min(patience.backoff * 2 ** max(fruitless - 1, 0), patience.longest)
            if talk.notice:
                talk.notice(f"{reason}; trying again in {wait:.0f} s, {gigabytes(_size(part))} are here")
            time.sleep(wait)


def _attempt(url: str, part: Path, progress: Progress | None, timeout: float) -> None:
    """One request for what ``part`` lacks. _Interrupted where a further attempt may bring more."""
    remote, have = _read_state(part), _size(part)
    if remote is None or remote.url != url:
        remote, have = None, 0  # of unknown origin: what comes must not be added to it
    if remote is not None and have == remote.length:
        return
    try:
        answer = _open(url, remote, have, timeout)
    except urllib.error.HTTPError as error:
        if error.code == 416:
            _discard(part)
            raise _Interrupted("the file on the server has changed") from error
        if error.code in _RETRY:
            raise _Interrupted(f"the server answered {error.code} {error.reason}") from error
        _give_up(url, part, f"the server answered {error.code} {error.reason}")
    except (OSError, http.client.HTTPException) as error:
        raise _Interrupted(_network_reason(error, url)) from error
    with answer:
        if answer.status == 206 and remote is not None:
            start, total = _content_range(answer.headers.get("Content-Range", ""))
            if start != have or total not in (None, remote.length) or not _same(remote, answer):
                _discard(part)
                raise _Interrupted("the file on the server has changed")
            _require_space(part, have, remote.length)
            _receive(answer, part, have, remote.length, progress, url)
        else:
            _start(answer, url, part, progress)


def _open(url: str, remote: _Remote | None, have: int, timeout: float) -> http.client.HTTPResponse:
    request = urllib.request.Request(url, headers={"User-Agent": "ndissect", "Accept-Encoding": "identity"})
    if remote is not None and have:
        request.add_header("Range", f"bytes={have}-")
        # A weak ETag does not promise the same bytes.
        unchanged = remote.etag if remote.etag and not remote.etag.startswith("W/") else remote.modified
        if unchanged:
            request.add_header("If-Range", unchanged)
    answer: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=timeout)
    return answer


def _start(answer: http.client.HTTPResponse, url: str, part: Path, progress: Progress | None) -> None:
    """The whole file from its beginning. What is here already is given up only for the beginning of an archive."""
    try:
        first = answer.read(len(_ZIP_START))
    except (OSError, http.client.HTTPException) as error:
        raise _Interrupted(_network_reason(error, url)) from error
    kind = answer.headers.get_content_type()
    if first and not _ZIP_START.startswith(first[:4]):
        _give_up(url, part, f"the server sent no zip archive but {'a web page' if 'html' in kind else kind}")
    declared = answer.headers.get("Content-Length", "")
    length = int(declared) if re.fullmatch("[0-9]{1,15}", declared) else None
    if (length or 0) > _LARGEST:
        _give_up(url, part, f"it has {gigabytes(length or 0)}, and Broden's archives about 1 GB")
    _require_space(part, _size(part), length)
    etag, modified = answer.headers.get("ETag", ""), answer.headers.get("Last-Modified", "")
    _discard(part)
    with replacing(_state(part)) as state:
        state.write_text(json.dumps(asdict(_Remote(url, length, etag, modified))), "utf-8")
    with replacing(part) as begun:
        begun.write_bytes(first)
    _receive(answer, part, len(first), length, progress, url)


def _receive(
    answer: http.client.HTTPResponse,
    part: Path,
    have: int,
    length: int | None,
    progress: Progress | None,
    url: str,
) -> None:
    with open(part, "ab", opener=own_file) as file:
        while True:
            try:
                piece = answer.read1(_PIECE)
            except (OSError, http.client.HTTPException) as error:
                raise _Interrupted(_network_reason(error, url)) from error
            if not piece:
                break
            file.write(piece)
            have += len(piece)
            if have > _LARGEST:
                _discard(part)
                _give_up(url, part, f"it has more than {gigabytes(_LARGEST)}, and Broden's archives about 1 GB")
            if progress:
                progress("download", have, length)
    if length is not None and have < length:
        raise _Interrupted(f"the connection was cut after {gigabytes(have)} of {gigabytes(length)}")


def _require_space(part: Path, have: int, length: int | None) -> None:
    needed = (length or 0) * (1 + _UNPACKED) - have
    require_space(part.parent, needed, f"download and unpack {part.stem}")


def _same(remote: _Remote, answer: http.client.HTTPResponse) -> bool:
    """Whether a partial answer belongs to the file that was begun, as far as the server says."""
    etag, modified = answer.headers.get("ETag", ""), answer.headers.get("Last-Modified", "")
    return (not etag or etag == remote.etag) and (not modified or modified == remote.modified)


def _content_range(text: str) -> tuple[int, int | None]:
    """The first byte and the total of ``bytes 5-9/10``; (-1, None) where it says something else."""
    match = re.fullmatch(r"\s*bytes\s+([0-9]+)-[0-9]+/([0-9]+|\*)\s*", text)
    return (int(match[1]), None if match[2] == "*" else int(match[2])) if match else (-1, None)


def _network_reason(error: Exception, url: str) -> str:
    host = urllib.parse.urlsplit(url).hostname
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(cause, socket.gaierror):
        return f"the host name {host} was not found ({cause.strerror})"
    if isinstance(cause, TimeoutError):
        return f"{host} does not answer"
    if isinstance(cause, ConnectionRefusedError):
        return f"{host} refuses the connection"
    if isinstance(cause, (ConnectionError, http.client.IncompleteRead)):
        return f"{host} cut the connection"
    return f"{host} cannot be reached ({cause})"


def _give_up(url: str, part: Path, reason: str) -> NoReturn:
    kept = f". {gigabytes(_size(part))} are kept in {part}" if _size(part) else ""
    archive = part.with_suffix("")
    again = f"Try again later{' to continue' if kept else ''}"
    raise NDError(
        f"{url} could not be downloaded: {reason}{kept}",
        f"{again}; or put a copy of the archive at {archive} and run this again; or pass its unpacked folder with "
        f"--data; or name another host in the environment variable ND_BRODEN_URL",
    )


def _state(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _read_state(part: Path) -> _Remote | None:
    try:
        remote = _Remote(**json.loads(read_regular(_state(part), _MOST_STATE)))
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    texts = (remote.url, remote.etag, remote.modified)  # they go into the request
    sound = all(isinstance(text, str) and text.isprintable() for text in texts)
    return remote if sound and isinstance(remote.length, int | None) else None


def _discard(part: Path) -> None:
    part.unlink(missing_ok=True)
    _state(part).unlink(missing_ok=True)


def _size(part: Path) -> int:
    return part.stat().st_size if part.is_file() and not part.is_symlink() else 0
