"""How much memory a run may use: what ``--memory`` says, else half of what is free."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from ndissect.engine.machine.memory import Budget, budget, free_memory
from ndissect.store.errors import WrongUse

CPU = torch.device("cpu")

SIZES = {
    "8GB": 8 * 10**9,
    "8gb": 8 * 10**9,
    "8G": 8 * 10**9,
    "1.5GiB": 3 << 29,
    "500 MB": 500 * 10**6,
    " 500 MB ": 500 * 10**6,
    "64KiB": 1 << 16,
    "64kB": 64_000,
    "3MiB": 3 << 20,
    "2TB": 2 * 10**12,
    "1TiB": 1 << 40,
    "100": 100,
    "100 B": 100,
}


@pytest.mark.parametrize("text", SIZES)
def test_a_size_is_read_as_people_write_it(text: str) -> None:
    assert budget(text, CPU) == Budget(SIZES[text], 0)


def test_of_two_sizes_the_first_is_the_hosts_and_a_run_without_a_gpu_needs_no_second() -> None:
    assert budget("8GB,40GB", CPU) == Budget(8 * 10**9, 0)
    assert Budget(1, 2).on(CPU) == 1
    assert Budget(1, 2).on(torch.device("cuda")) == 2


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_of_two_sizes_the_second_is_the_gpus() -> None:
    gpu = torch.device("cuda")
    assert budget("8GB,40GB", gpu) == Budget(8 * 10**9, 40 * 10**9)
    assert 0 < budget("8GB", gpu).gpu <= torch.cuda.mem_get_info(gpu)[1] // 2
    with pytest.raises(WrongUse):
        budget("8GB,lots", gpu)


@pytest.mark.parametrize("text", ["lots", "8XB", "-8GB", "GB", "8GB40GB", "1e9", "1.2.3GB", "8 G B", " ", "nan"])
def test_what_is_no_size_is_refused_and_the_option_is_named(text: str) -> None:
    with pytest.raises(WrongUse) as refused:
        budget(text, CPU)
    assert "--memory" in refused.value.message
    assert f"'{text}'" in refused.value.message
    assert "8GB" in refused.value.hint


@pytest.mark.parametrize("text", ["8GB,lots", "8GB,40GB,1GB"])
def test_a_second_size_that_is_none_is_refused_without_a_gpu_too(text: str) -> None:
    with pytest.raises(WrongUse, match="--memory"):
        budget(text, CPU)


def test_a_run_that_is_told_nothing_takes_half_of_what_is_free() -> None:
    before = free_memory()
    found = budget(None, CPU)
    after = free_memory()
    assert found.gpu == 0
    # Other processes take and give memory meanwhile.
    assert 0.35 * min(before, after) < found.host < 0.65 * max(before, after)


def test_processes_of_one_machine_share_what_is_free() -> None:
    alone, shared = budget(None, CPU), budget(None, CPU, processes=4)
    assert 0.7 * alone.host < 4 * shared.host < 1.4 * alone.host


def test_a_budget_is_told_in_words() -> None:
    assert str(Budget(8 * 10**9, 0)) == "8.0 GB"
    assert str(Budget(8 * 10**9, 40 * 10**9)) == "8.0 GB and 40.0 GB on the GPU"


# In a process of its own: a peak that an earlier test reached would hide what this one takes.
GROW = """
import numpy, torch
from ndissect.engine.machine.memory import high_water

cpu = torch.device("cpu")
before = high_water(cpu)
taken = numpy.ones(200_000_000, numpy.uint8)
after = high_water(cpu)
del taken
print(before.host, after.host, high_water(cpu).host, after.gpu)
"""


def grow(*start: str) -> tuple[int, int, int, int]:
    """Before, with and after 200 MB, and on the GPU; ``start`` is run, with the interpreter and the program."""
    done = subprocess.run([*start, sys.executable, "-c", GROW], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    before, after, later, gpu = map(int, done.stdout.split())
    return before, after, later, gpu


def test_the_high_water_mark_rises_with_what_is_taken_and_stays_when_it_is_given_back() -> None:
    # A shell between: Linux counts what the process that started another one took as that one's peak too.
    before, after, later, gpu = grow("sh", "-c", '"$0" "$@"; exit $?')
    assert before > 10**7, "bytes: torch alone takes more than that"
    assert 150 * 10**6 < after - before < 300 * 10**6
    assert later > after - 2**20, "the kernel's own counters lag by some pages"
    assert gpu == 0


def test_the_high_water_mark_is_of_this_process_and_not_of_the_one_that_started_it() -> None:
    taken = np.ones(1_000_000_000, np.uint8)
    before, *_ = grow()
    assert before < taken.nbytes
