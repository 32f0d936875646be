"""No link is followed where nd writes or deletes: links to victims lie at every path that a command writes.

``planted_links.py`` runs each command once to learn the paths, those with a random or a process's number in their names
too, then again with links there. A file or folder that a link leads to stays as it was, byte for byte; the command ends
well with its output in place, or in two lines.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import cli
import planted_links
import pytest


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where a server has one archive, which it sends for whatever is asked."""
    folder = cli.write_inputs(tmp_path_factory.mktemp("archive"))
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for path in sorted((folder / "small").rglob("*")):
            archive.write(path, f"broden1_224/{path.relative_to(folder / 'small')}")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(packed.getvalue())))
            self.end_headers()
            self.wfile.write(packed.getvalue())

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def probes(tmp_path_factory: pytest.TempPathFactory, address: str) -> dict[str, Any]:
    """What was seen of each scenario."""
    base = tmp_path_factory.mktemp("planted")
    environ = {**os.environ, "OMP_NUM_THREADS": "1", "ND_BRODEN_URL": address}
    program = [sys.executable, planted_links.__file__, str(base), str(base / "result.json")]
    done = subprocess.run(program, env=environ, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads((base / "result.json").read_text())
    return found


@pytest.mark.parametrize("name", planted_links.SCENARIOS)
def test_links_at_every_path_that_is_written_are_not_followed(probes: dict[str, Any], name: str) -> None:
    found = probes[name]
    runs = found["runs"]
    assert [path for run in runs for path in run["harmed"]] == []
    assert {path for run in runs for path in run["planted"]} == set(found["written"])
    for run in runs:
        if run["code"]:
            assert run["code"] in (1, 2), run
            cli.two_lines(run["stderr"][run["stderr"].index("nd: ") :])
        assert run["missing"] == [], run


def test_hundreds_of_paths_were_tried(probes: dict[str, Any]) -> None:
    tried = sum(len(found["written"]) for found in probes.values())
    refused = sum(len(found["refused"]) for found in probes.values())
    assert tried > 150
    assert refused < tried / 2, "most links are in nobody's way: the names are others each time"
