"""What holds for every test: its threads, whether it has the machine for itself, and fixtures that many share.

``pytest -n auto`` runs the tests in as many processes as there are cores. A test that is marked ``alone`` starts when
those that run have ended, and the next tests wait for its end: it measures seconds or memory, or kills processes at
moments that a busy machine would move.
"""

from __future__ import annotations

import fcntl
import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from browsing import Visit

if "PYTEST_XDIST_WORKER" in os.environ:
    # Before torch is imported. Several processes that each use every core wait for each other's threads.
    os.environ["OMP_NUM_THREADS"] = "1"

# What a script starts in the background ignores Ctrl-C, and so does whatever that starts: the commands under test too.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_configure(config: pytest.Config) -> None:
    """Give each process a folder of a short name for temporary files: the longer a path, the more lines show it."""
    if hasattr(config, "workerinput"):  # not a pytest that a test of a worker starts
        theirs = Path(config.option.basetemp)
        config.option.basetemp = theirs.with_name(os.environ["PYTEST_XDIST_WORKER"].removeprefix("gw"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Run ``item`` beside the tests of other processes, or without any if it is marked ``alone``.

    Two locked files do it. Whoever has ``turn`` is the next to start, so that tests which run beside others do not
    always come before one that waits for their end. ``running`` is shared by tests that run at the same time.
    """
    if not hasattr(item.config, "workerinput"):
        return (yield)
    # The folder that all processes of these tests share: each has its own for temporary files in it.
    factory: pytest.TempPathFactory = item.config._tmp_path_factory  # type: ignore[attr-defined]
    folder = factory.getbasetemp().parent
    with ExitStack() as stack:
        turn, running = (stack.enter_context((folder / name).open("w")) for name in ("turn", "running"))
        fcntl.flock(turn, fcntl.LOCK_EX)
        fcntl.flock(running, fcntl.LOCK_EX if item.get_closest_marker("alone") else fcntl.LOCK_SH)
        fcntl.flock(turn, fcntl.LOCK_UN)
        try:
            return (yield)
        finally:
            # Explicitly: a process that was forked meanwhile and lives on holds these files open.
            fcntl.flock(running, fcntl.LOCK_UN)


@pytest.fixture(scope="session")
def stoppable_inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The inputs of tests/faults.py, and its network ``slow.py:network`` that stops at a forward pass. To be copied."""
    import faults

    folder = faults.write_inputs(tmp_path_factory.mktemp("stoppable"))
    (folder / "slow.py").write_text(faults.STOPPING)
    return folder


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A small store on the disk; modules with other needs have one of their own."""
    from store_factory import write_small

    return write_small(tmp_path / "small.nd.h5")


@pytest.fixture
def visit(store: Path) -> Iterator[Visit]:
    """``nd browse`` over that store, at its first screen."""
    from browsing import Visit

    with Visit(store) as visit:
        yield visit
