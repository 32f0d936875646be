"""Bad input and bad luck: two lines that say what failed and what to do, the right exit code, and nothing lost."""

from __future__ import annotations

import os
import pickle
import shutil
import signal
import subprocess
from pathlib import Path

import cli
import pytest
from faults import Command

OLD = b"an output of another day"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Data and network, no store."""
    return cli.write_inputs(tmp_path)


# What a network, its weights or its layers can have wrong: each a run of its own, two at a time. There is more that can
# be wrong (test_networks, test_weights and test_layers have it all); here is one of each kind, told by the command.


class Evil:
    """A pickle that would leave a file."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch the-code-ran",)


WRONG = {
    "unknown layer": (("-l", "deep.pol"), 2, ("no layer 'deep.pol'", "deep.pool")),
    "a layer that is no map": (("-l", "unused"), 2, ("unused (Identity) cannot be dissected", "units")),
    "text as weights": (("--weights", "text.pt"), 1, ("text.pt is not a checkpoint", ".safetensors")),
    "code as weights": (("--weights", "evil.pt"), 1, ("evil.pt holds more than tensors", "could run code")),
    "a deviation of nothing": (("--std", "0.2,0,0.2"), 2, ("--std '0.2,0,0.2'", "above 0")),
    "a mean that is no number": (("--mean", "0.5,nan"), 2, ("--mean '0.5,nan' is no list of numbers", "0.485")),
    "unknown network": (("nothing.here:net",), 2, ("no module named nothing.here", "torchvision:NAME")),
}


Run = tuple[subprocess.CompletedProcess[str], set[str], set[str]]


@pytest.fixture(scope="module")
def wrong_runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """Every run of WRONG in a folder of its own, and the files there before and after it."""
    top = tmp_path_factory.mktemp("wrong")
    made = cli.write_inputs(top / "made")
    (made / "text.pt").write_text("lr: 0.1\n")
    (made / "evil.pt").write_bytes(pickle.dumps({"state_dict": Evil()}))

    def run(name: str) -> Run:
        folder = Path(shutil.copytree(made, top / name.replace(" ", "-")))
        before = cli.files_in(folder)
        args = WRONG[name][0]
        network = () if ":" in args[0] else ("net.py:network",)
        done = cli.nd("dissect", *network, *args, "--data", "small", folder=folder)
        return done, before, cli.files_in(folder)

    return dict(zip(WRONG, cli.in_parallel(run, WRONG), strict=True))


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_network_layer_or_checkpoint(name: str, wrong_runs: dict[str, Run]) -> None:
    done, before, after = wrong_runs[name]
    cli.failed(done, WRONG[name][1], *WRONG[name][2])
    assert after == before, "no file is left, and no code of a pickle ran"


# Options

OPTIONS = {
    "command": (("inspct",), ("No such command 'inspct'", "inspect")),
    "option": (("dissect", "--layrs", "x"), ("--layrs",)),
    "missing value": (("dissect", "--layers"), ("--layers",)),
    "missing argument": (("overlay",), ("LAYER:UNIT",)),
    "extra argument": (("inspect", "a", "b"), ("b",)),
    "protocol": (("dissect", "--protocol", "cvpr2018"), ("unknown protocol 'cvpr2018'", "cvpr2017")),
    "upsampling": (("dissect", "--upsampling", "bilinear"), ("bilinear", "half-pixel", "receptive-field")),
    "quantile": (("dissect", "--quantile", "1.5"), ("1.5", "0.005")),
    "quantile over": (("dissect", "--quantile-over", "maps"), ("maps", "upsampled")),
    "grid": (("dissect", "--grid", "tiny"), ("tiny", "label")),
    "union": (("dissect", "--union", "some"), ("some", "within-category")),
    "maps": (("dissect", "--maps", "twice"), ("twice", "once-a-map")),
    "min images": (("dissect", "--min-images", "-3"), ("-3",)),
    "batch": (("dissect", "--batch-size", "many"), ("--batch-size",)),
    "top": (("dissect", "--top", "0"), ("--top",)),
    "size": (("dissect", "--size", "0x3"), ("--size '0x3'", "224")),
    "mean": (("dissect", "--mean", "a,b"), ("--mean 'a,b'", "0.485")),
    "sort": (("inspect", "--sort", "size"), ("size", "threshold")),
    "weights": (("dissect", "--weights", "gone.pt"), ("gone.pt", "--weights")),
    "network file": (("dissect", "gone.py:network"), ("gone.py", "path/file.py:factory")),
}


@pytest.fixture(scope="module")
def option_runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, subprocess.CompletedProcess[str]]:
    folder = tmp_path_factory.mktemp("options")
    runs = cli.in_parallel(lambda name: cli.nd(*OPTIONS[name][0], folder=folder), OPTIONS)
    assert cli.files_in(folder) == set()
    return dict(zip(OPTIONS, runs, strict=True))


@pytest.mark.parametrize("name", OPTIONS)
def test_a_wrong_option_is_told_in_two_lines(
    name: str, option_runs: dict[str, subprocess.CompletedProcess[str]]
) -> None:
    cli.failed(option_runs[name], 2, *OPTIONS[name][1])


# Stores


def test_what_is_no_store(place: Path) -> None:
    whole = cli.workplace(place) / "net-small.nd.h5"
    (place / "half.nd.h5").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    (place / "text.nd.h5").write_text("not a store")
    (place / "empty.nd.h5").write_bytes(b"")
    commands = (("inspect",), ("concepts",), ("overlay", "units:0"), ("export", "units"))
    for name, said in (("half", "truncated"), ("text", "not an ndissect store"), ("empty", "is empty")):
        path = f"{name}.nd.h5"
        for done in cli.in_parallel(lambda args, path=path: cli.nd(*args, "-s", path, folder=place), commands):
            cli.failed(done, 1, path, said)


# Where the output goes

DROP_RIGHTS = """
import ctypes, os
if os.geteuid() == 0:  # root may write anywhere: give that right up (CAP_DAC_OVERRIDE, from the bounding set)
    assert ctypes.CDLL(None).prctl(24, 1, 0, 0, 0) == 0
"""
FULL_DISK = """
import collections, shutil
shutil.disk_usage = lambda path: collections.namedtuple("usage", "total used free")(1 << 40, (1 << 40) - 1000, 1000)
"""


def test_an_output_that_exists_is_kept_unless_a_person_says_yes(place: Path) -> None:
    mine = place / "mine.nd.h5"
    mine.write_bytes(OLD)
    args = (*cli.DISSECT, "-o", "mine.nd.h5")
    cli.failed(cli.nd(*args, folder=place), 2, "mine.nd.h5 exists", "--force")
    with cli.Terminal(*args, folder=place) as terminal:
        terminal.wait_for("mine.nd.h5 exists. Replace it? [y/N]")
        terminal.type("n\n")
    assert terminal.code == 2
    assert "mine.nd.h5 is kept" in terminal.text
    assert mine.read_bytes() == OLD
    # The default name is known once the network is.
    (place / "net-small.nd.h5").write_bytes(OLD)
    with cli.Terminal(*cli.DISSECT, folder=place) as terminal:
        terminal.wait_for("net-small.nd.h5 exists. Replace it? [y/N]")
        terminal.type("y\n")
    assert terminal.code == 0, terminal.text
    assert cli.json_of("inspect", "-s", "net-small.nd.h5", folder=place)["layers"]


def test_a_person_is_asked_once(place: Path) -> None:
    """Before the network is loaded, and not again when it is known."""
    (place / "mine.nd.h5").write_bytes(OLD)
    with cli.Terminal(*cli.DISSECT, "-o", "mine.nd.h5", folder=place) as terminal:
        terminal.wait_for("Replace it? [y/N]")
        terminal.type("y\n")
    assert terminal.code == 0, terminal.text
    assert terminal.text.count("Replace it?") == 1


def test_a_folder_that_is_missing_read_only_or_in_the_way(place: Path) -> None:
    def refused(code: int, *said: str) -> None:
        done = cli.nd(*cli.DISSECT, "-o", "there/x.nd.h5", folder=place, before=DROP_RIGHTS)
        cli.failed(done, code, *said)

    before = cli.files_in(place)
    refused(2, "the folder there does not exist", "mkdir -p there")
    (place / "there").mkdir(mode=0o555)
    refused(1, "cannot write", "Permission denied", "--output")
    (place / "there").chmod(0o755)
    (place / "there" / "x.nd.h5").mkdir()
    refused(2, "there/x.nd.h5 is a folder")
    assert cli.files_in(place) == before


def test_a_disk_too_small_for_the_store_is_found_before_the_counting(place: Path) -> None:
    (place / "site").mkdir()
    (place / "site" / "sitecustomize.py").write_text(FULL_DISK)
    before = cli.files_in(place)
    done = cli.nd(*cli.DISSECT, folder=place, env={"PYTHONPATH": str(place / "site")})
    cli.failed(done, 1, "has 1.0 kB free, the store needs about", "free some space")
    assert cli.files_in(place) == before


def test_a_disk_that_fills_up_leaves_what_was_there(place: Path) -> None:
    """A limit on the size of files stands for the full disk: writing breaks off in the middle."""
    (place / "net-small.nd.h5").write_bytes(OLD)
    before = cli.files_in(place)
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))"
    done = cli.nd(*cli.DISSECT, "--force", folder=place, before=limit)
    assert done.returncode == 1, done.stderr
    assert done.stdout == ""
    cli.two_lines("\n".join(done.stderr.splitlines()[-2:]), "cannot write net-small.nd.h5", "unchanged")
    assert (place / "net-small.nd.h5").read_bytes() == OLD
    assert cli.files_in(place) == before


# Stopped half-way

STOPPABLE = (
    f"EXAMINED = {cli.EXAMINED}\n"
    """
import os, time
from pathlib import Path

from net import network as whole

PHASE = os.environ["STOP_IN"]


def here(seconds=2):
    Path(__file__).with_name("here").touch()
    time.sleep(seconds)


def network():
    made, transform = whole()
    calls = iter(range(1000))
    if PHASE == "loading":
        here(20)
    # Batches of 6 of the 12 images: a call looks at the layers, some try the network, six are the thresholds' passes,
    # two are the tally's.
    at = {"thresholds": EXAMINED + 2, "tally": EXAMINED + 7}.get(PHASE)
    made.units.register_forward_hook(lambda *a: here() if next(calls) == at else None)
    return made, transform
"""
)

# In the tally a person stops it: below, on a terminal.
STOPS = [("loading", signal.SIGINT), ("thresholds", signal.SIGINT), ("tally", signal.SIGTERM)]
# So little memory that the thresholds take three passes, and the tally one of its own.
SMALL = ("--memory", "100")


Stop = tuple[str, signal.Signals]


def stopped(folder: Path, phase: str, number: signal.Signals) -> tuple[int, str, str, set[str]]:
    """A run over an older output that gets a signal in a phase: exit code, what it printed, the files it added."""
    cli.write_inputs(folder)
    (folder / "stoppable.py").write_text(STOPPABLE)
    (folder / "out.nd.h5").write_bytes(OLD)
    before = cli.files_in(folder)
    args = (
        "dissect",
        "stoppable.py:network",
        "--data",
        "small",
        "-l",
        "units",
        "-b",
        "6",
        "-o",
        "out.nd.h5",
        "--force",
        *SMALL,
    )
    command = Command(*args, folder=folder, env={"STOP_IN": phase})
    cli.wait_for(folder / "here")
    command.signal(number)
    done = command.end()
    assert (folder / "out.nd.h5").read_bytes() == OLD
    return done.returncode, done.stdout, done.stderr, cli.files_in(folder) - before


@pytest.fixture(scope="module")
def stopped_runs(tmp_path_factory: pytest.TempPathFactory) -> dict[Stop, tuple[int, str, str, set[str]]]:
    top = tmp_path_factory.mktemp("stopped")
    return dict(zip(STOPS, cli.in_parallel(lambda s: stopped(top / s[0], *s), STOPS), strict=True))


@pytest.mark.parametrize("stop", STOPS, ids=lambda s: f"{s[0]}-{s[1].name}")
def test_a_run_that_is_stopped_saves_what_it_counted_and_says_how_to_go_on(
    stop: Stop, stopped_runs: dict[Stop, tuple[int, str, str, set[str]]]
) -> None:
    code, out, err, added = stopped_runs[stop]
    assert code == 128 + stop[1], err
    assert out == ""
    *_, what, hint = err.splitlines()
    by = "" if stop[1] == signal.SIGINT else f" by {stop[1].name}"
    again = "nd dissect stoppable.py:network --data small -l units -b 6 -o out.nd.h5 --force --memory 100"
    assert "Traceback" not in err
    if stop[0] == "loading":
        assert (what, hint) == (f"nd: stopped{by}; nothing was written", f"    start again: {again}")
        assert added == {"here"}
        return
    assert (what, hint) == (f"nd: stopped{by}; what was counted is saved", f"    go on: {again}")
    passes = {"thresholds": 1, "tally": 4}[stop[0]]
    saved = {".out.nd.h5.saved/lock", ".out.nd.h5.saved/run.json"}
    assert f".out.nd.h5.saved/0.phase{passes - 1}.safetensors" in added
    assert added >= {"here"} | saved


def test_ctrl_c_on_a_terminal_takes_the_bar_down(place: Path) -> None:
    (place / "stoppable.py").write_text(STOPPABLE)
    (place / "out.nd.h5").write_bytes(OLD)
    before = cli.files_in(place)
    args = (
        "dissect",
        "stoppable.py:network",
        "--data",
        "small",
        "-l",
        "units",
        "-b",
        "6",
        "-o",
        "out.nd.h5",
        "--force",
        *SMALL,
    )
    with cli.Terminal(*args, folder=place, env={"STOP_IN": "tally"}) as terminal:
        cli.wait_for(place / "here")
        terminal.type("\x03")
    assert terminal.code == 130, terminal.text
    assert (place / "out.nd.h5").read_bytes() == OLD
    assert ".out.nd.h5.saved/0.phase3.safetensors" in cli.files_in(place) - before
    assert "nd: stopped; what was counted is saved" in terminal.text
    assert "".join(["goon:nd", *args]) in "".join(terminal.text.split())
    assert terminal.raw.count("\x1b[?25h") >= terminal.raw.count("\x1b[?25l"), "the cursor is shown again"


def test_ctrl_c_elsewhere_is_told_in_a_line(place: Path) -> None:
    with cli.Terminal(
        "data", "download", "broden1_224", folder=place, env={"ND_BRODEN_URL": "http://127.0.0.1:1"}
    ) as t:
        t.wait_for("trying again")
        t.type("\x03")
    assert t.code == 130
    assert t.lines[-1].endswith("nd: interrupted")
    assert "Traceback" not in t.text


# Defects and their tracebacks


def test_debug_shows_the_traceback_of_a_failure(place: Path) -> None:
    for args in (("--debug", "inspect"), ("inspect", "--debug")):
        done = cli.nd(*args, folder=place)
        assert done.returncode == 1
        assert "Traceback (most recent call last)" in done.stderr
        assert "no *.nd.h5 store in this folder" in done.stderr


BROKEN = """
import ndissect.store.files

def broken(*given):
    raise KeyError("weights")

ndissect.store.files.find_store = broken
"""


def test_a_defect_is_told_as_one(place: Path) -> None:
    (place / "sitecustomize.py").write_text(BROKEN)
    env = {"PYTHONPATH": str(place)}
    cli.failed(cli.nd("inspect", folder=place, env=env), 1, "unexpected KeyError: 'weights'", "--debug", "defect")
    assert "KeyError" in cli.nd("inspect", "--debug", folder=place, env=env).stderr


def test_standard_output_that_is_full(place: Path) -> None:
    cli.workplace(place)
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [str(cli.ND), "inspect", "units"],
            cwd=place,
            env=cli.environment(place),
            stdout=full,
            stderr=subprocess.PIPE,
        )
    assert done.returncode == 1
    cli.two_lines(done.stderr.decode(), "cannot write to the standard output: No space left on device")
