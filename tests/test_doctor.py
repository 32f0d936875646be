"""`nd doctor` finds what is wrong, says what to do, and survives everything that is broken."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ndissect.tui.cli.doctor_checks import examine
from ndissect.tui.cli.doctor_finding import Finding
from ndissect.tui.cli.doctor_folders import lock_error
from ndissect.tui.cli.doctor_terminal import graphics_protocol

#: Makes every lock fail with the error number in LOCK_ERRNO, as a file system without locks does.
NO_LOCKS = """
#include <errno.h>
#include <stdlib.h>
int flock(int file, int operation) { errno = atoi(getenv("LOCK_ERRNO")); return -1; }
"""

EXAMINE = """
import dataclasses, json, sys
from pathlib import Path
from ndissect.tui.cli.doctor_checks import examine
print(json.dumps([dataclasses.asdict(f) for f in examine(Path(sys.argv[1]))]))
"""


def environment(**changes: str) -> dict[str, str]:
    """This process's environment without what would decide the answers, and with ``changes``."""
    decides = ("ND_VIEWER", "TMUX", "STY", "TERM", "LC_ALL", "LC_CTYPE", "LANG", "HDF5_USE_FILE_LOCKING")
    return {**{k: v for k, v in os.environ.items() if k not in decides}, "TERM": "xterm", "LANG": "C.UTF-8", **changes}


def by_topic(findings: list[Finding]) -> dict[str, Finding]:
    return {f.topic: f for f in findings}


def examined(folder: Path, **changes: str) -> dict[str, Finding]:
    return by_topic(examine(folder, environment(**changes)))


def in_a_process(folder: Path, script: str = EXAMINE, **changes: str) -> dict[str, Finding]:
    argv = [sys.executable, "-c", script, str(folder)]
    run = subprocess.run(argv, capture_output=True, text=True, env=environment(**changes), cwd=folder)
    assert run.returncode == 0, run.stderr
    return by_topic([Finding(**f) for f in json.loads(run.stdout)])


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Finding]]:
    folder = tmp_path_factory.mktemp("healthy")
    return folder, examine(folder, environment())


def test_every_topic_of_interest_is_there_once(healthy: tuple[Path, list[Finding]]) -> None:
    topics = [f.topic for f in healthy[1]]
    assert len(topics) == len(set(topics))
    libraries = ["python", "ndissect", "torch", "torchvision", "numpy", "h5py", "typer", "rich", "textual", "pillow"]
    here = ["cpu", "memory", "viewer", "terminal", "locale", "folder", "file locking", "disk here", "disk for data"]
    assert [t for t in topics if t in libraries + here] == libraries + here
    assert any(t.startswith("cuda") for t in topics)


def test_nothing_is_wrong_with_a_healthy_machine_and_nothing_is_left_behind(
    healthy: tuple[Path, list[Finding]],
) -> None:
    folder, findings = healthy
    assert [f for f in findings if f.state == "fail"] == []
    assert list(folder.iterdir()) == []


def test_findings_are_json(healthy: tuple[Path, list[Finding]]) -> None:
    back = json.loads(json.dumps([dataclasses.asdict(f) for f in healthy[1]]))
    assert [Finding(**f) for f in back] == healthy[1]


def test_the_versions_are_those_of_the_libraries(healthy: tuple[Path, list[Finding]]) -> None:
    import h5py

    found = by_topic(healthy[1])
    assert found["torch"].detail == importlib.metadata.version("torch")
    assert found["h5py"].detail == f"{h5py.__version__} (HDF5 {h5py.version.hdf5_version})"
    assert sys.executable in found["python"].detail


def test_a_broken_library_is_a_finding_and_the_others_are_still_examined(tmp_path: Path) -> None:
    (tmp_path / "torchvision.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    (tmp_path / "torch.py").write_text("import absent_library")
    found = in_a_process(tmp_path, PYTHONPATH=str(tmp_path))
    assert (found["torch"].state, found["torchvision"].state) == ("fail", "fail")
    assert "nms does not exist" in found["torchvision"].detail
    assert "pip install" in found["torchvision"].hint
    assert found["devices"].state == "fail"
    assert found["numpy"].state == found["memory"].state == found["file locking"].state == "ok"


def test_an_old_library_is_a_warning(tmp_path: Path) -> None:
    info = tmp_path / "safetensors-0.0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: safetensors\nVersion: 0.0.1\n")
    found = in_a_process(tmp_path, PYTHONPATH=str(tmp_path))
    assert found["safetensors"].state == "warn"
    assert found["safetensors"].detail.startswith("0.0.1: older than")


def test_no_network_is_used(tmp_path: Path) -> None:
    watched = """
import sys
def watch(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto", "urllib.Request"):
        raise SystemExit(f"the network was used: {event} {arguments}")
sys.addaudithook(watch)
"""
    assert in_a_process(tmp_path, watched + EXAMINE)["torch"].state == "ok"


# ---- devices


@pytest.fixture
def smi(tmp_path: Path) -> Path:
    (tmp_path / "bin").mkdir()
    script = tmp_path / "bin" / "nvidia-smi"
    script.write_text(
        '#!/bin/sh\n[ -n "$BROKEN" ] && { echo "Driver/library version mismatch"; exit 18; }\necho 470.1\n'
    )
    script.chmod(0o755)
    return script.parent


def test_a_gpu_that_torch_cannot_use_is_a_warning(tmp_path: Path, smi: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("torch can use the GPU of this machine")
    path = f"{smi}:{os.environ['PATH']}"
    found = examined(tmp_path, PATH=path, CUDA_VISIBLE_DEVICES="")["cuda"]
    assert found.state == "warn"
    assert "470.1" in found.detail
    assert "CUDA_VISIBLE_DEVICES" in found.hint
    assert "This torch was built" in examined(tmp_path, PATH=path, CUDA_VISIBLE_DEVICES="0")["cuda"].hint
    assert "version mismatch" in examined(tmp_path, PATH=path, BROKEN="1")["cuda"].detail


def test_more_threads_than_cores_are_a_warning(tmp_path: Path) -> None:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads((os.cpu_count() or 1) + 1)
    try:
        found = examined(tmp_path)["cpu"]
    finally:
        torch.set_num_threads(before)
    assert found.state == "warn"
    assert "OMP_NUM_THREADS" in found.hint
    assert examined(tmp_path)["cpu"].state == "ok"


# ---- viewer and terminal


def test_a_viewer_that_is_absent_is_a_failure(tmp_path: Path) -> None:
    found = examined(tmp_path, ND_VIEWER="no-such-program --x")
    assert found["viewer"].state == "fail"
    assert "no-such-program" in found["viewer"].detail


def test_the_viewer_that_would_be_used_is_told(tmp_path: Path) -> None:
    found = examined(tmp_path, ND_VIEWER=f"{sys.executable} -m show")
    assert found["viewer"].detail == f"{sys.executable} -m show (because of $ND_VIEWER; terminal)"


@pytest.mark.parametrize(
    ("environ", "protocol"),
    [
        ({"KITTY_WINDOW_ID": "1"}, "kitty"),
        ({"TERM": "xterm-ghostty"}, "kitty"),
        ({"TERM_PROGRAM": "iTerm.app"}, "iterm"),
        ({"LC_TERMINAL": "iTerm2", "TERM": "tmux-256color"}, "iterm"),
        ({"TERM": "foot"}, "sixel"),
        ({"TERM": "xterm-256color"}, "none"),
        ({}, "none"),
    ],
)
def test_the_graphics_protocol_is_guessed_from_the_environment(environ: dict[str, str], protocol: str) -> None:
    assert graphics_protocol(environ).split()[0] == protocol


def test_a_terminal_that_will_make_trouble_is_a_warning(tmp_path: Path) -> None:
    found = examined(tmp_path, TMUX="/tmp/tmux,1,0", TERM="xterm-256color", LANG="C", SSH_CONNECTION="a b c d")
    assert found["terminal"].state == "warn"
    assert "inside tmux, over ssh" in found["terminal"].detail
    assert "default-terminal" in found["terminal"].hint
    assert found["locale"].state == "warn"
    assert examined(tmp_path, TERM="dumb")["terminal"].state == "warn"


# ---- folder, locking, disk


def test_a_missing_folder_is_a_failure_with_its_reason(tmp_path: Path) -> None:
    found = examined(tmp_path / "absent" / "deeper")
    assert found["folder"].state == "fail"
    assert "No such file or directory" in found["folder"].detail
    assert found["file locking"].state == "warn"
    assert found["disk here"].state == "ok"


def test_locks_work_on_a_local_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in (tmp_path, Path()):  # the folder that `nd doctor` looks at by itself is the relative one
        found = examined(folder)["file locking"]
        assert (found.state, found.detail.split(":")[0]) == ("ok", "works")


def test_locks_that_were_switched_off_are_told(tmp_path: Path) -> None:
    found = examined(tmp_path, HDF5_USE_FILE_LOCKING="FALSE")["file locking"]
    assert (found.state, found.detail) == ("ok", "switched off by HDF5_USE_FILE_LOCKING=FALSE")


@pytest.fixture(scope="module")
def no_locks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    compiler = shutil.which("cc")
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("a file system without locks is made with a C compiler on Linux")
    folder = tmp_path_factory.mktemp("shim")
    (folder / "no_locks.c").write_text(NO_LOCKS)
    library = folder / "no_locks.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, folder / "no_locks.c"], check=True)
    yield str(library)


@pytest.mark.parametrize(("number", "word"), [(11, "NFS"), (37, "flock"), (524, "noflock")])
def test_a_file_system_without_locks_is_explained(tmp_path: Path, no_locks: str, number: int, word: str) -> None:
    found = examined(tmp_path, LD_PRELOAD=no_locks, LOCK_ERRNO=str(number))["file locking"]
    assert found.state == "fail"
    assert f"errno {number}" in found.detail
    assert word in found.detail
    assert "HDF5_USE_FILE_LOCKING unset" in found.detail
    assert "HDF5_USE_FILE_LOCKING=FALSE" in found.hint
    cured = examined(tmp_path, LD_PRELOAD=no_locks, LOCK_ERRNO=str(number), HDF5_USE_FILE_LOCKING="FALSE")
    assert cured["file locking"].state == "ok"


def test_locks_that_are_ignored_are_a_warning(tmp_path: Path, no_locks: str) -> None:
    found = examined(tmp_path, LD_PRELOAD=no_locks, LOCK_ERRNO="38", HDF5_USE_FILE_LOCKING="BEST_EFFORT")
    assert found["file locking"].state == "warn"
    assert "not enforced" in found["file locking"].detail


def test_an_error_without_a_known_number_is_told_as_it_is() -> None:
    assert lock_error("Traceback\nOSError: (errno = 5, error message = 'Input/output error')").endswith(
        "output error')"
    )
    assert lock_error("") == "no message"


def test_the_cache_folder_is_examined_where_nd_cache_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ND_CACHE", str(tmp_path / "not" / "there" / "yet"))
    found = by_topic(examine(tmp_path, os.environ))["disk for data"]
    assert found.state == "ok"
    assert f"in {tmp_path}/not/there/yet (ND_CACHE)" in found.detail
    assert not (tmp_path / "not").exists()


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a folder in which nobody can make files")
def test_a_folder_in_which_no_file_can_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ND_CACHE", "/proc/self/ndissect")
    found = by_topic(examine(Path("/proc/self"), os.environ))
    assert found["folder"].state == "fail"
    assert found["disk for data"].state == "fail"
    assert "ND_CACHE" in found["disk for data"].hint


def test_a_disk_without_room_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tempfile.gettempdir())
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10 * 1024**2))
    found = examined(tmp_path)
    assert found["disk here"].state == found["disk for data"].state == "warn"


def test_a_check_that_breaks_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(_: Path) -> None:
        raise ZeroDivisionError("by accident")

    monkeypatch.setattr(shutil, "disk_usage", breaks)
    found = examined(tmp_path)["disk"]
    assert (found.state, found.detail) == ("fail", "This check broke: ZeroDivisionError: by accident")
