"""``nd data download`` against real local servers: interrupted, changed, wrong and dead ones, and evil archives."""

from __future__ import annotations

import io
import json
import socket
import stat
import struct
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from broden_factory import Concept, Picture, write_broden

from ndissect.engine.data.download import Patience, download
from ndissect.engine.data.formats import find_dataset, open_dataset
from ndissect.engine.data.unpack import BadArchive, unpack
from ndissect.store.errors import NDError, WrongUse
from ndissect.store.files import being_written, cache_folder

NAME = "broden1_224"
QUICK = Patience(attempts=3, backoff=0.01, longest=0.02, timeout=2)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A sound archive of about 150 kB, its one folder named as Broden's."""
    folder = tmp_path_factory.mktemp("made") / NAME
    pictures = [Picture({"object": np.full((16, 16), 3)}, name=f"src/{i}.png") for i in range(6)]
    write_broden(folder, pictures, [Concept(3, "tree")], image_size=(90, 90))
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as packed:
        for path in sorted(folder.rglob("*")):
            packed.write(path, f"{NAME}/{path.relative_to(folder).as_posix()}")
    return out.getvalue()


@dataclass
class Site:
    """A server of one file, and how it misbehaves. ``drops``: how many bytes of the body it sends, answer by answer."""

    body: bytes
    drops: list[int] = field(default_factory=list)
    ranges: bool = True
    etag: str = '"one"'
    modified: str = "Mon, 01 May 2017 10:00:00 GMT"
    length: bool = True
    kind: str = "application/zip"
    status: list[int] = field(default_factory=list)
    before: Callable[[Site, int], None] = lambda site, count: None
    url: str = ""
    asked: list[dict[str, str]] = field(default_factory=list)
    sent: int = 0

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        self.before(self, len(self.asked))
        asked = {k.lower(): v for k, v in handler.headers.items()}
        self.asked.append(asked | {"path": handler.path})
        if self.status and (code := self.status.pop(0)) != 200:
            handler.send_error(code)
            return
        start, unchanged = 0, asked.get("if-range", self.etag) in (self.etag, self.modified)
        if self.ranges and "range" in asked and unchanged:
            start = int(asked["range"].removeprefix("bytes=").removesuffix("-"))
        if start >= len(self.body) and start:
            handler.send_response(416)
            handler.send_header("Content-Range", f"bytes */{len(self.body)}")
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        handler.send_response(206 if start else 200)
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{len(self.body) - 1}/{len(self.body)}")
        if self.length:
            handler.send_header("Content-Length", str(len(self.body) - start))
        for header, value in (("ETag", self.etag), ("Last-Modified", self.modified), ("Content-Type", self.kind)):
            if value:
                handler.send_header(header, value)
        handler.end_headers()
        stop = start + self.drops.pop(0) if self.drops else len(self.body)
        handler.wfile.write(self.body[start:stop])
        self.sent += len(self.body[start:stop])

    def ranges_asked(self) -> list[str]:
        return [a.get("range", "") for a in self.asked]


@pytest.fixture
def site(archive: bytes) -> Iterator[Site]:
    found = Site(archive)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found.answer(self)
            self.close_connection = True

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        found.url = f"http://127.0.0.1:{server.server_port}/data"
        yield found
        server.shutdown()
        thread.join()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, also the default one, in a folder that does not exist yet."""
    monkeypatch.delenv("ND_BRODEN_URL", raising=False)
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("ND_CACHE", str(tmp_path / "deep" / "cache"))
    return tmp_path / "deep" / "cache"


def fetch(site: Site, cache: Path) -> Path:
    return download(NAME, cache, site.url, patience=QUICK)


def left_over(cache: Path) -> set[str]:
    """What lies in the cache beside the lock."""
    return {p.name for p in cache.iterdir()} - {f"{NAME}.lock"}


# Sound servers


def test_a_data_set_is_fetched_unpacked_and_found_by_name(site: Site, cache: Path) -> None:
    seen: list[tuple[str, int, int | None]] = []
    path = download(NAME, base_url=site.url, progress=lambda *now: seen.append(now), patience=QUICK)
    assert path == cache / NAME == cache_folder() / NAME == find_dataset(NAME)
    assert len(open_dataset(path)) == 6
    assert open_dataset(path).read(5).image.shape == (90, 90, 3)
    assert left_over(cache) == {NAME}
    assert site.asked[0]["path"] == f"/data/{NAME}.zip"
    fetched = [now for now in seen if now[0] == "download"]
    assert fetched[-1] == ("download", len(site.body), len(site.body))
    assert seen[-1][0] == "unpack"
    assert seen[-1][1] == seen[-1][2]
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(cache.stat().st_mode)


def test_what_is_there_is_returned_without_a_request(site: Site, cache: Path) -> None:
    fetch(site, cache)
    assert fetch(site, cache) == cache / NAME
    assert len(site.asked) == 1


def test_the_environment_names_another_host(site: Site, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ND_BRODEN_URL", site.url + "/")
    assert len(open_dataset(download(NAME, patience=QUICK))) == 6


def test_an_unknown_name_is_refused_with_the_nearest(cache: Path) -> None:
    with pytest.raises(WrongUse, match="broden1_224"):
        download("broden1_225", cache)
    assert not cache.exists()


# Interruptions


def test_a_download_that_breaks_several_times_continues_where_it_stopped(site: Site, cache: Path) -> None:
    site.drops = [10_000, 20_000, 1, 30_000, 0, 7]
    notices: list[str] = []
    path = download(NAME, cache, site.url, notice=notices.append, patience=QUICK)
    assert len(open_dataset(path)) == 6
    reached = [10_000, 30_000, 30_001, 60_001, 60_001, 60_008]
    assert site.ranges_asked() == ["", *(f"bytes={n}-" for n in reached)]
    assert {a.get("if-range") for a in site.asked[1:]} == {'"one"'}
    assert site.sent == len(site.body)
    assert len(notices) == 6
    assert "cut" in notices[0]


def test_a_later_call_continues_what_an_earlier_one_left(site: Site, cache: Path) -> None:
    site.drops = [50_000, 0, 0, 0]
    with pytest.raises(NDError) as caught:
        fetch(site, cache)
    assert "are kept in" in caught.value.message
    assert "3 times in a row" in caught.value.message
    assert "continue" in caught.value.hint
    assert (cache / f"{NAME}.zip.part").stat().st_size == 50_000
    site.asked.clear()
    assert len(open_dataset(fetch(site, cache))) == 6
    assert site.ranges_asked() == ["bytes=50000-"]
    assert site.sent == len(site.body)


def test_attempts_that_bring_something_new_are_not_counted(site: Site, cache: Path) -> None:
    site.drops = [1000] * 40
    assert len(open_dataset(fetch(site, cache))) == 6


def test_a_server_without_ranges_starts_over_cleanly(site: Site, cache: Path) -> None:
    site.ranges = False
    site.drops = [40_000, 60_000]
    assert len(open_dataset(fetch(site, cache))) == 6
    assert site.sent == 100_000 + len(site.body)


def test_a_server_without_ranges_that_always_breaks_is_given_up(site: Site, cache: Path) -> None:
    site.ranges = False
    site.drops = [40_000, 30_000, 35_000, 30_000, 35_000, 30_000]
    with pytest.raises(NDError, match="could not be downloaded"):
        fetch(site, cache)
    assert len(site.asked) == 4


@pytest.mark.parametrize("tag", ["etag", "modified", "length alone"])
def test_a_file_that_changed_meanwhile_is_fetched_anew(site: Site, cache: Path, tag: str) -> None:
    new, site.body = site.body, b"PK\x03\x04" + bytes(len(site.body) + 5)
    site.drops = [40_000]
    if tag != "etag":
        site.etag = ""
    if tag == "length alone":
        site.modified = ""

    def change(site: Site, count: int) -> None:
        if count == 1:
            site.body = new
            site.etag = '"two"' if site.etag else ""
            site.modified = "Tue, 02 May 2017 10:00:00 GMT" if site.modified else ""

    site.before = change
    assert len(open_dataset(fetch(site, cache))) == 6
    # Where the server itself compares, its answer is the new file; else the answer's total gives it away.
    assert site.ranges_asked() == ["", "bytes=40000-", *([""] if tag == "length alone" else [])]


def test_a_file_that_shrank_below_what_is_here_is_fetched_anew(site: Site, cache: Path) -> None:
    new, site.body = site.body, b"PK\x03\x04" + bytes(2 * len(site.body))
    site.etag = site.modified = ""
    site.drops = [len(new) + 100]
    site.before = lambda site, count: setattr(site, "body", new if count else site.body)
    assert len(open_dataset(fetch(site, cache))) == 6


def test_a_weak_etag_is_not_relied_on(site: Site, cache: Path) -> None:
    site.etag = 'W/"one"'
    site.drops = [40_000]
    assert len(open_dataset(fetch(site, cache))) == 6
    assert site.asked[1]["if-range"] == site.modified


def test_a_partial_file_of_unknown_origin_is_not_continued(site: Site, cache: Path) -> None:
    cache.mkdir(parents=True)
    (cache / f"{NAME}.zip.part").write_bytes(bytes(1000))
    assert len(open_dataset(fetch(site, cache))) == 6
    assert site.ranges_asked() == [""]


def test_what_another_host_sent_is_not_continued(site: Site, cache: Path) -> None:
    cache.mkdir(parents=True)
    (cache / f"{NAME}.zip.part").write_bytes(bytes(1000))
    state = {"url": f"http://other/{NAME}.zip", "length": len(site.body), "etag": site.etag, "modified": site.modified}
    (cache / f"{NAME}.zip.part.json").write_text(json.dumps(state))
    assert len(open_dataset(fetch(site, cache))) == 6
    assert site.ranges_asked() == [""]


def test_a_download_complete_before_it_was_unpacked_needs_no_server(site: Site, cache: Path) -> None:
    cache.mkdir(parents=True)
    part = cache / f"{NAME}.zip.part"
    part.write_bytes(site.body)
    url = "http://127.0.0.1:9/data"
    state = {"url": f"{url}/{NAME}.zip", "length": len(site.body), "etag": "", "modified": ""}
    (cache / f"{NAME}.zip.part.json").write_text(json.dumps(state))
    killed = subprocess.Popen(["true"])
    killed.wait()
    being_written(cache / NAME, killed.pid).mkdir()
    assert len(open_dataset(download(NAME, cache, url, patience=QUICK))) == 6
    assert left_over(cache) == {NAME}


def test_what_a_killed_download_was_writing_goes_at_the_next_start(site: Site, cache: Path, archive: bytes) -> None:
    code = """
import os, signal, sys
from pathlib import Path
from ndissect.engine.data.download import download
Path.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
download(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
"""
    done = subprocess.run([sys.executable, "-c", code, NAME, str(cache), site.url], check=False)
    assert done.returncode < 0
    assert [name.endswith(".part") for name in left_over(cache)] == [True]
    (cache / f"{NAME}.zip").write_bytes(archive)  # by hand: nothing is fetched, so nothing is written over
    fetch(site, cache)
    assert left_over(cache) == {NAME, f"{NAME}.zip"}


def test_a_body_of_undeclared_length(site: Site, cache: Path) -> None:
    site.length = False
    assert len(open_dataset(fetch(site, cache))) == 6


def test_a_busy_server_is_asked_again(site: Site, cache: Path) -> None:
    site.status = [503, 429, 200]
    assert len(open_dataset(fetch(site, cache))) == 6


# Servers that are of no use


@pytest.mark.parametrize("code", [404, 403, 410])
def test_a_file_that_is_not_there(site: Site, cache: Path, code: int) -> None:
    site.status = [code]
    with pytest.raises(NDError, match=f"answered {code}") as caught:
        fetch(site, cache)
    assert len(site.asked) == 1
    assert "--data" in caught.value.hint
    assert "ND_BRODEN_URL" in caught.value.hint
    assert str(cache / f"{NAME}.zip") in caught.value.hint


def test_a_web_page_instead_of_the_archive_leaves_the_partial_file_alone(site: Site, cache: Path) -> None:
    site.drops = [50_000, 0, 0, 0]
    with pytest.raises(NDError):
        fetch(site, cache)
    site.body, site.kind, site.etag = (
        b"<!DOCTYPE html><title>Sign in</title>" * 10,
        "text/html; charset=utf-8",
        '"page"',
    )
    site.modified = ""
    with pytest.raises(NDError, match="a web page"):
        fetch(site, cache)
    assert (cache / f"{NAME}.zip.part").stat().st_size == 50_000


def test_a_dead_host(cache: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/data"
        with pytest.raises(NDError, match="refuses the connection") as caught:
            download(NAME, cache, url, patience=QUICK)
    assert "kept" not in caught.value.message
    assert "Try again later;" in caught.value.hint
    assert left_over(cache) == set()


def test_a_host_that_says_nothing(cache: Path) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/data"
        with pytest.raises(NDError, match="does not answer"):
            download(NAME, cache, url, patience=Patience(attempts=2, backoff=0.01, timeout=0.1))


def test_a_host_name_that_does_not_exist(cache: Path) -> None:
    with pytest.raises(NDError, match=r"host name no-such-host\.invalid was not found"):
        download(NAME, cache, "http://no-such-host.invalid/data", patience=QUICK)


@pytest.mark.parametrize("url", ["file:///etc", "ftp://host/data", "no address"])
def test_only_web_addresses_are_fetched(cache: Path, url: str) -> None:
    with pytest.raises(WrongUse, match="no http or https address"):
        download(NAME, cache, url)


# The disk


def test_a_full_disk_is_found_before_anything_is_fetched(
    site: Site, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 2 * len(site.body)}))
    with pytest.raises(NDError, match="free") as caught:
        fetch(site, cache)
    assert "ND_CACHE" in caught.value.hint
    assert left_over(cache) == set()


def test_a_cache_that_cannot_be_written(site: Site, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(NDError, match="cannot be written") as caught:
        fetch(site, tmp_path / "file" / "cache")
    assert "ND_CACHE" in caught.value.hint


def test_a_folder_of_that_name_that_is_no_data_set_is_not_touched(site: Site, cache: Path) -> None:
    (cache / NAME).mkdir(parents=True)
    (cache / NAME / "mine.txt").write_text("mine")
    with pytest.raises(NDError, match="exists"):
        fetch(site, cache)
    assert (cache / NAME / "mine.txt").read_text() == "mine"
    assert site.asked == []


def test_two_processes_do_not_write_one_file(site: Site, cache: Path) -> None:
    fcntl = pytest.importorskip("fcntl", reason="no file locks on this system")
    cache.mkdir(parents=True)
    with (cache / f"{NAME}.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(NDError, match="Another process"):
            fetch(site, cache)
    assert site.asked == []
    assert len(open_dataset(fetch(site, cache))) == 6


# Archives


def test_an_archive_put_there_by_hand_is_unpacked_and_kept(archive: bytes, cache: Path) -> None:
    cache.mkdir(parents=True)
    (cache / f"{NAME}.zip").write_bytes(archive)
    path = download(NAME, cache, "http://127.0.0.1:9/data", patience=QUICK)
    assert len(open_dataset(path)) == 6
    assert left_over(cache) == {NAME, f"{NAME}.zip"}


def test_a_damaged_download_is_removed_and_fetched_anew_the_next_time(site: Site, cache: Path) -> None:
    whole = site.body
    site.body = whole[:70_000] + bytes([whole[70_000] ^ 1]) + whole[70_001:]
    with pytest.raises(NDError, match=r"of no use.*damaged") as caught:
        fetch(site, cache)
    assert "try again" in caught.value.hint
    assert left_over(cache) == set()
    site.body, site.etag = whole, '"two"'
    assert len(open_dataset(fetch(site, cache))) == 6


def test_every_damaged_byte_of_a_member_is_found(archive: bytes, tmp_path: Path) -> None:
    for at in range(100, len(archive) - 4000, len(archive) // 40):
        bad = bytearray(archive)
        bad[at] ^= 0x55
        (tmp_path / "bad.zip").write_bytes(bad)
        try:
            unpack(tmp_path / "bad.zip", tmp_path / f"out{at}")
        except NDError:
            assert not (tmp_path / f"out{at}").exists()
        else:  # a byte that carries no content: a time stamp
            assert len(open_dataset(tmp_path / f"out{at}")) == 6


SOUND = {"index.csv": b"image", "label.csv": b"number", "category.csv": b"name", "images/a.png": b"pixels"}


def pack(path: Path, members: dict[str, bytes | tuple[zipfile.ZipInfo, bytes]], top: str = f"{NAME}/") -> Path:
    """An archive of the sound members below ``top`` and of ``members`` as they are named."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, data in SOUND.items():
            packed.writestr(top + name, data)
        for name, what in members.items():
            info, data = what if isinstance(what, tuple) else (zipfile.ZipInfo(name), what)
            info.filename = name  # not as the constructor tidies it
            packed.writestr(info, data, zipfile.ZIP_DEFLATED)
    return path


def special(name: str, mode: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system = 3
    info.external_attr = mode << 16
    return info


@pytest.mark.parametrize("top", ["", f"{NAME}/", "renamed/"])
def test_the_data_set_is_found_at_the_root_or_in_one_folder(tmp_path: Path, top: str) -> None:
    archive = pack(tmp_path / "a.zip", {"__MACOSX/index": b"", "notes/": b""} if top else {}, top)
    unpack(archive, tmp_path / "out")
    assert {p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*.*")} == set(SOUND)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("../evil.txt", "leads out"),
        (f"{NAME}/images/../../../evil.txt", "leads out"),
        ("/evil.txt", "absolute"),
        ("//host/evil.txt", "absolute"),
        ("C:/evil.txt", "absolute"),
        (f"{NAME}\\..\\..\\evil.txt", "absolute or foreign"),
        (f"{NAME}/./evil.txt", "empty part"),
    ],
)
def test_members_outside_the_folder_are_refused(tmp_path: Path, name: str, reason: str) -> None:
    inside = tmp_path / "deep" / "deeper"
    inside.mkdir(parents=True)
    archive = pack(inside / "a.zip", {name: b"evil"})
    with pytest.raises(BadArchive, match=reason):
        unpack(archive, inside / "out")
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == ["a.zip"]


@pytest.mark.parametrize(("mode", "reason"), [(stat.S_IFLNK | 0o777, "a link"), (stat.S_IFIFO | 0o666, "special file")])
def test_links_and_special_files_are_refused(tmp_path: Path, mode: int, reason: str) -> None:
    name = f"{NAME}/images/link"
    archive = pack(tmp_path / "a.zip", {name: (special(name, mode), b"/etc")})
    with pytest.raises(BadArchive, match=reason):
        unpack(archive, tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["a.zip"]


def test_two_members_of_one_name_are_refused(tmp_path: Path) -> None:
    archive = pack(tmp_path / "a.zip", {f"{NAME}/Images/A.png": b"other"})
    with pytest.raises(BadArchive, match="two members of one name"):
        unpack(archive, tmp_path / "out")


def test_an_archive_that_would_grow_out_of_proportion_is_refused(tmp_path: Path) -> None:
    archive = pack(tmp_path / "a.zip", {f"{NAME}/images/b.png": bytes(100 * 2**20)})
    assert archive.stat().st_size < 200_000
    with pytest.raises(BadArchive, match="would unpack to"):
        unpack(archive, tmp_path / "out")


def lie(path: Path, name: str, size: int) -> None:
    """Declare another unpacked size for a member, in its local header and in the directory."""
    data = bytearray(path.read_bytes())
    for start, offset, skip in ((b"PK\x03\x04", 22, 30), (b"PK\x01\x02", 24, 46)):
        at = data.index(start)
        while data[at + skip : at + skip + len(name)] != name.encode():
            at = data.index(start, at + 1)
        data[at + offset : at + offset + 4] = struct.pack("<I", size)
    path.write_bytes(data)


@pytest.mark.parametrize("declared", [10, 30 * 2**20])
def test_a_member_whose_size_is_a_lie_is_refused_and_writes_no_more(
    tmp_path: Path, declared: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"{NAME}/images/b.png"
    archive = pack(tmp_path / "a.zip", {name: bytes(20 * 2**20)})
    lie(archive, name, declared)
    most = 0

    def progress(phase: str, done: int, total: int | None) -> None:
        nonlocal most
        most = max(most, done)

    with pytest.raises(BadArchive):
        unpack(archive, tmp_path / "out", progress)
    assert most < 100
    assert [p.name for p in tmp_path.iterdir()] == ["a.zip"]


@pytest.mark.parametrize("missing", ["index.csv", "label.csv", "category.csv", "images/a.png"])
def test_an_archive_without_the_tables_is_refused(
    tmp_path: Path, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(SOUND, missing)
    with pytest.raises(BadArchive, match="no Broden archive"):
        unpack(pack(tmp_path / "a.zip", {}), tmp_path / "out")


@pytest.mark.parametrize("data", [b"", b"not a zip", b"PK\x03\x04" + bytes(100)])
def test_a_file_that_is_no_archive_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.zip").write_bytes(data)
    with pytest.raises(BadArchive, match="damaged"):
        unpack(tmp_path / "a.zip", tmp_path / "out")


def test_the_cache_folder_is_the_environments_or_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ND_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("ND_CACHE")
    assert "ndissect" in cache_folder().parts
