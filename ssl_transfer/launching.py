"""``--processes N``: the processes of one program on this machine, started and ended together.

They find each other by the environment variables of torchrun, which accelerate reads. Its own launchers would do as
much, but answer a Ctrl-C and a process that failed with a page of their own, and load torch once more to begin with.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

_FORWARDED = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
_SECONDS_FOR_OTHERS = 15.0  # until those that are left when one has failed are asked to end, and again until they must
_SECONDS_BETWEEN_LOOKS = 0.1


def start_processes(count: int, arguments: Sequence[str]) -> int:
    """Run this program ``count`` times with the same ``arguments``, and return the exit code when all have ended.

    Signals are passed on. When one fails the others, which cannot go on without it, are ended after a while. The code
    is that of the first that failed, or 128 and a signal's number where one was ended by that.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    together = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
    threads = {"OMP_NUM_THREADS": str(max(1, cores() // count))}  # unless it is said; else accelerate warns of its own
    # A group of their own: of a Ctrl-C at the terminal they hear once, through this process.
    own_group = {"process_group": 0} if os.name == "posix" else {}
    running: list[subprocess.Popen[bytes]] = []
    with _forwarding_to(running):
        for rank in range(count):
            place = {key: str(value) for key, value in {**together, "RANK": rank, "LOCAL_RANK": rank}.items()}
            command = [sys.executable, "-m", "ssl_transfer", *arguments]
            running.append(subprocess.Popen(command, env={**threads, **os.environ, **place}, **own_group))  # type: ignore[call-overload]
        return _ended(running)


def wrong_under_srun() -> str | None:
    """What is wrong, in a sentence, where ``srun`` started several tasks that no launcher has joined."""
    tasks = os.environ.get("SLURM_STEP_NUM_TASKS", "1")
    if tasks in ("", "1") or any(name in os.environ for name in ("RANK", "WORLD_SIZE")):
        return None
    return (
        f"srun started {tasks} tasks that know nothing of each other: let it start one launcher a machine, "
        "srun --ntasks-per-node=1 accelerate launch --multi_gpu ..., as in docs/scale.md"
    )


def cores() -> int:
    """How many of the machine's cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _ended(running: Sequence["subprocess.Popen[bytes]"]) -> int:
    failed: list[tuple[int, int]] = []  # rank and code, in the order in which they ended
    until, asked = float("inf"), signal.SIGTERM
    left = dict(enumerate(running))
    while left:
        for rank, process in list(left.items()):
            if process.poll() is not None:
                del left[rank]
                failed += [(rank, process.returncode)] if process.returncode else []
        if failed and until == float("inf"):
            until = time.monotonic() + _SECONDS_FOR_OTHERS
        if left and time.monotonic() > until:
            for process in left.values():
                process.send_signal(asked)
            until, asked = time.monotonic() + _SECONDS_FOR_OTHERS, getattr(signal, "SIGKILL", signal.SIGTERM)
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    if not failed:
        return 0
    rank, code = failed[0]
    if code < 0:
        why = " (perhaps for lack of memory)" if -code == getattr(signal, "SIGKILL", None) else ""
        print(
            f"ssl-transfer: process {rank} of {len(running)} was ended by {signal.Signals(-code).name}{why}",
            file=sys.stderr,
        )
        return 128 - code
    return code


@contextmanager
def _forwarding_to(running: Sequence["subprocess.Popen[bytes]"]) -> Iterator[None]:
    """Pass signals on instead of ending by them."""

    def forward(number: int, frame: FrameType | None) -> None:
        for process in running:
            if process.poll() is None:
                process.send_signal(number)

    heard = (number for number in _FORWARDED if signal.getsignal(number) is not signal.SIG_IGN)  # nohup ignores SIGHUP
    before = {number: signal.signal(number, forward) for number in heard}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
