"""``nd data`` and ``nd doctor``: what a data set holds, what is wrong with it, fetching one, and the machine."""

from __future__ import annotations

import io
import json
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cli
import numpy as np
import pytest
from broden_factory import drop_column, read_csv, save_map, write_csv
from PIL import Image

MADE = Path("small") / "images" / "made"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return cli.write_inputs(tmp_path)


# Info


def test_info_tells_images_concepts_and_frequencies(place: Path) -> None:
    done = cli.nd("data", "info", "small", folder=place)
    assert (done.returncode, done.stderr) == (0, "")
    categories = [line.split("\t") for line in done.stdout.splitlines()]
    assert ["category", "concepts", "images", "coverage"] in categories
    assert ["object", "2", "12"] in [row[:3] for row in categories]
    found = cli.json_of("data", "info", "small", "--count", "2", folder=place)
    assert found["images"] == cli.IMAGES
    held = {c["name"]: c["concepts"] for c in found["categories"] if c["concepts"]}
    assert held == {"object": 2, "part": 1, "color": 1, "scene": 1}
    assert found["least"][0]["name"] == "traffic_light"
    assert len(found["most"]) == 2
    seen = cli.on_terminal("data", "info", "small", folder=place)
    assert "12 images" in seen.text
    assert "traffic light" in seen.text
    assert all(len(line) <= 80 for line in seen.lines)


# Check


def test_a_sound_data_set_is_said_to_be(place: Path) -> None:
    done = cli.nd("data", "check", "small", folder=place)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == "small: nothing is wrong\n"
    assert cli.json_of("data", "check", "small", folder=place) == {"path": "small", "problems": []}


def break_everything(place: Path) -> dict[str, str]:
    """Break the data set in every way of the list; what must be said of which file."""
    made = place / MADE
    (made / "0000.png").write_bytes((made / "0000.png").read_bytes()[:100])
    picture = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (cli.SIZE, cli.SIZE, 3), np.uint8)).save(picture, "JPEG")
    (made / "0001.png").write_bytes(picture.getvalue()[: len(picture.getvalue()) // 2])
    (made / "0002.png").unlink()
    (made / "0003_object_0.png").unlink()
    save_map(made / "0004_object_0.png", np.zeros((7, 9), np.uint16))
    Image.new("LA", (cli.SIZE, cli.SIZE)).save(made / "0005_object_0.png")
    save_map(made / "0006_object_0.png", np.full((cli.SIZE, cli.SIZE), 777, np.uint16))
    map_file = made / "0007_object_0.png"
    map_file.write_bytes(map_file.read_bytes()[:-20])
    Image.new("RGB", (9, 7)).save(made / "0008.png")
    return {
        "images/made/0000.png": "not a readable image",
        "images/made/0001.png": "not a readable image",
        "images/made/0002.png": "missing",
        "images/made/0003_object_0.png": "missing",
        "images/made/0004_object_0.png": "7 x 9",
        "images/made/0005_object_0.png": "8-bit greyscale",
        "images/made/0006_object_0.png": "777",
        "images/made/0007_object_0.png": "",
        "images/made/0008.png": "7 x 9",
    }


def test_check_lists_all_that_is_wrong_and_ends_with_1(place: Path) -> None:
    expected = break_everything(place)
    before = cli.files_in(place)
    done = cli.nd("data", "check", "small", folder=place)
    assert done.returncode == 1
    header, *rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert header == ["file", "what is wrong"]
    found = dict(rows)
    assert set(found) == set(expected)
    for file, what in expected.items():
        assert what in found[file]
    assert done.stderr == "small: 9 problems\n"
    listed = cli.nd("data", "check", "small", "--json", folder=place)
    assert listed.returncode == 1
    assert {p["file"]: p["what"] for p in json.loads(listed.stdout)["problems"]} == found
    seen = cli.on_terminal("data", "check", "small", folder=place)
    assert seen.code == 1
    together = "".join(seen.text.split())
    assert all("".join(file.split()) in together for file in expected), "however long, nothing is cut"
    assert "…" not in seen.text
    assert cli.files_in(place) == before


def test_a_run_over_broken_data_stops_before_it_counts(place: Path) -> None:
    break_everything(place)
    before = cli.files_in(place)
    done = cli.nd(*cli.DISSECT, folder=place)
    assert done.returncode == 1
    start, *error = done.stderr.splitlines(keepends=True)
    assert start.startswith("net.py:network on small: 12 images")
    cli.two_lines("".join(error), "9 of 12 images cannot be used", "0000.png", "nd data check small", "--skip-bad")
    assert cli.files_in(place) == before


# Tables that are wrong, and no data at all: said before torch is imported


def without_torch(place: Path) -> Path:
    """A folder for PYTHONPATH in which torch cannot be imported."""
    (place / "no_torch" / "torch").mkdir(parents=True)
    (place / "no_torch" / "torch" / "__init__.py").write_text("raise ImportError('torch was imported')")
    return place / "no_torch"


def test_tables_that_are_wrong(place: Path) -> None:
    index = place / "small" / "index.csv"
    whole = index.read_text()

    def refused(*said: str) -> None:
        for args in (("data", "info", "small"), cli.DISSECT):
            cli.failed(cli.nd(*args, folder=place, env={"PYTHONPATH": str(no_torch)}), 1, *said)
        checked = cli.nd("data", "check", "small", folder=place)
        assert checked.returncode == 1
        assert said[-1] in checked.stdout

    no_torch = without_torch(place)
    drop_column(index, "sh")
    refused("index.csv", "sh")
    index.write_text(whole)
    write_csv(index, read_csv(index)[0], [])
    refused("index.csv", "the data set is empty")
    index.write_text(whole)
    (place / "small" / "label.csv").unlink()
    refused("label.csv", "missing")


def test_a_data_set_that_is_not_there(place: Path) -> None:
    for args in (("data", "info"), ("data", "check"), ("dissect", "net.py:network", "--data")):
        cli.failed(cli.nd(*args, "gone", folder=place), 2, "gone", "data")
        cli.failed(cli.nd(*args, "net.py", folder=place), 2, "net.py", "folder")
        cli.failed(cli.nd(*args, "broden1_224", folder=place), 2, "nd data download broden1_224")
        cli.failed(cli.nd(*args, "broden1_225", folder=place), 2, "broden1_224")
    (place / "empty").mkdir()
    cli.failed(cli.nd("data", "info", "empty", folder=place), 1, "empty is not a data set", "index.csv")


# Download


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, list[str]]]:
    """A server of broden1_224.zip that drops the first connection half-way; its address and the ranges asked for."""
    folder = cli.write_inputs(tmp_path / "origin")
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for path in sorted((folder / "small").rglob("*")):
            archive.write(path, f"broden1_224/{path.relative_to(folder / 'small').as_posix()}")
    body = packed.getvalue()
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.headers.get("Range", ""))
            start = int(asked[-1].removeprefix("bytes=").removesuffix("-") or 0)
            if self.path != "/data/broden1_224.zip":
                self.send_error(404)
                return
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
            self.send_header("Content-Length", str(len(body) - start))
            self.send_header("ETag", '"1"')
            self.send_header("Content-Type", "application/zip")
            self.end_headers()
            self.wfile.write(body[start : len(body) // 2] if len(asked) == 1 else body[start:])
            self.close_connection = True

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}/data", asked
        http.shutdown()
        thread.join()


def test_a_download_resumes_lands_in_the_cache_and_is_found_by_name(place: Path, server: tuple[str, list[str]]) -> None:
    url, asked = server
    env = {"ND_BRODEN_URL": url}
    done = cli.nd("data", "download", "broden1_224", folder=place, env=env)
    assert done.returncode == 0, done.stderr
    folder = place / "cache" / "broden1_224"
    assert done.stdout == f"{folder}\n"
    assert "cut" in done.stderr, "an interruption is told"
    assert "--data broden1_224" in done.stderr
    assert asked[0] == ""
    assert asked[1].startswith("bytes=")
    assert asked[1] != "bytes=0-"
    assert cli.json_of("data", "info", "broden1_224", folder=place)["images"] == cli.IMAGES
    again = cli.nd("data", "download", "broden1_224", folder=place, env=env)
    assert (again.returncode, again.stdout) == (0, f"{folder}\n")
    assert len(asked) == 2, "what is there is not fetched again"


def test_a_download_that_cannot_be(place: Path, server: tuple[str, list[str]]) -> None:
    url, _ = server
    missing = cli.nd("data", "download", "broden1_227", folder=place, env={"ND_BRODEN_URL": url})
    cli.failed(missing, 1, "404", "ND_BRODEN_URL")
    cli.failed(cli.nd("data", "download", "broden1_225", folder=place), 2, "broden1_225", "broden1_224")
    done = cli.nd("data", "download", "broden1_224", folder=place, env={"ND_BRODEN_URL": "ftp://x"})
    cli.failed(done, 2, "ftp://x", "ND_BRODEN_URL")


# Doctor


def test_the_doctor_reports_what_it_found(place: Path) -> None:
    found = json.loads(cli.nd("doctor", "--json", folder=place).stdout)["findings"]
    assert all(set(f) == {"topic", "state", "detail", "hint"} for f in found)
    assert {f["state"] for f in found} <= {"ok", "warn", "fail"}
    topics = " ".join(f["topic"] for f in found).lower()
    for topic in ("torch", "viewer", "disk"):
        assert topic in topics


def test_the_doctor_ends_with_1_where_something_would_fail(place: Path) -> None:
    done = cli.nd("doctor", folder=place, env={"PYTHONPATH": str(without_torch(place))})
    assert done.returncode == 1
    header, *rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert header == ["", "what", "found"]
    assert ["fail", "torch"] in [row[:2] for row in rows]
