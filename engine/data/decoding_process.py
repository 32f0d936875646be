"""A process that decodes images for the main one: ``python -m ndissect.engine.data.decoding_process``.

It is given the numbers of open files: where it answers, where it takes tasks, one that closes when the main process has
gone, one that holds the job, and the memory into which batches are read.
"""

from __future__ import annotations

import mmap
import os
import pickle
import sys
import threading
from collections.abc import Sequence
from multiprocessing.connection import Connection

from ndissect.engine.data.decoding_messages import Answer, Begun, Failed, Job, Read, Ready, Task
from ndissect.engine.data.shared_arrays import SharedArrays


def main(files: Sequence[int]) -> None:
    """Read the batches that are asked for, until nobody asks any more."""
    told, tasks, lifeline, job_file, *memory_files = files
    threading.Thread(target=_end_with, args=(lifeline,), daemon=True).start()
    with mmap.mmap(job_file, 0, access=mmap.ACCESS_READ) as pickled:
        job: Job = pickle.loads(pickled)
    memory = [SharedArrays(file) for file in memory_files]
    with Connection(told) as connection:
        connection.send(Ready())
        while task := Task.take(tasks):
            connection.send(Begun(task.number))
            connection.send(Answer(task.number, _result(job, task, memory)))


def _result(job: Job, task: Task, memory: Sequence[SharedArrays]) -> Read | Failed:
    try:
        return Read.into(memory[task.memory], job.reader, job.batch(task.number))
    except Exception as error:  # whatever it is, it is the main process's
        return Failed.by(error)


def _end_with(lifeline: int) -> None:
    """End this process when the main one has gone, at whatever it is."""
    os.read(lifeline, 1)
    os._exit(0)


if __name__ == "__main__":
    try:
        main([int(file) for file in sys.argv[1:]])
    except ConnectionError:  # nobody asks any more
        os._exit(0)
