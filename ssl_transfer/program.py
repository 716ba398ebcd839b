"""What is around every program of the project: whatever a person can mend, or asked for, ends it in one sentence."""

import io
import os
import select
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from ssl_transfer.errors import Interrupted, UserError, machine_limits

_STOPPING = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def ends_in_a_sentence(name: str) -> Iterator[None]:
    """Around a whole program: a :class:`UserError`, a full disk or memory, Ctrl-C or SIGTERM end it in one sentence.

    The sentence goes to stderr behind ``name``. The exit code is the error's: 2, or 130 where the program was asked to
    stop. Nothing is said where the output goes to a pipe that nobody reads any more, as behind ``| head``.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # letters that the terminal does not know, as stderr has them
    try:
        with machine_limits(), _stops_as_errors():
            try:
                yield
            finally:
                if sys.stdout is not None:
                    sys.stdout.flush()  # here, where what goes wrong with it can be told
    except UserError as error:
        _say(name, str(error), interrupted=isinstance(error, Interrupted))
        _give_up_output()
        sys.exit(error.exit_code)
    except BrokenPipeError:
        if not _nobody_reads():
            raise
        _give_up_output()
        sys.exit(1)  # as rich does, which prints most of what we say


def end_at_once(name: str) -> None:
    """From now on Ctrl-C and SIGTERM end the program at once, in one sentence: nothing was begun that could be lost.

    For the time in which a program imports: an exception in the midst of that is caught by some libraries, and taken
    for something else by others.
    """

    def end(number: int, frame: FrameType | None) -> None:
        if speaks():
            os.write(2, f"{name}: stopped before anything was begun\n".encode())
        os._exit(Interrupted.exit_code)

    for number in _STOPPING:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as in the background of a shell
            signal.signal(number, end)


@contextmanager
def loading(name: str) -> Iterator[None]:
    """Around imports that take seconds: says so on a terminal, and lets Ctrl-C and SIGTERM end the program at once."""
    own = threading.current_thread() is threading.main_thread()
    before = {number: signal.getsignal(number) for number in _STOPPING}
    if own:
        end_at_once(name)
    shows = speaks() and sys.stderr is not None and sys.stderr.isatty()
    if shows:
        print(f"{name}: loading torch ...", end="", file=sys.stderr, flush=True)
    try:
        yield
    finally:
        if shows:
            print("\r\033[K", end="", file=sys.stderr, flush=True)
        for number, handler in before.items() if own else ():
            signal.signal(number, handler)


def speaks() -> bool:
    """Whether this process prints: the only one, or the first of several that a launcher started."""
    launched = {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys()
    return not launched or os.environ["RANK"] == "0"


@contextmanager
def _stops_as_errors() -> Iterator[None]:
    """Turn Ctrl-C and SIGTERM into :class:`Interrupted`; what comes after the first ends the program at once.

    Raises:
        Interrupted: either arrived inside the block.
    """
    own = threading.current_thread() is threading.main_thread()  # no other may ask for signals
    afterwards = {number: signal.getsignal(number) for number in _STOPPING}
    for number, handler in afterwards.items() if own else ():
        if handler is signal.SIG_DFL or getattr(handler, "__module__", None) == __name__:
            signal.signal(number, signal.default_int_handler)  # and not where it is ignored, or used by who called us
    try:
        yield
    except KeyboardInterrupt:
        afterwards = dict.fromkeys(_STOPPING, signal.SIG_DFL)
        raise Interrupted("stopped; what was finished is kept, and the same command goes on from there") from None
    finally:
        if own:
            for number, handler in afterwards.items():
                signal.signal(number, handler)


def _say(name: str, sentence: str, *, interrupted: bool) -> None:
    """Print what ends the program, once where all processes met it."""
    if speaks():
        print(f"{name}: {sentence}", file=sys.stderr)
    if interrupted:  # which all were
        return
    if not _everyone_says(sentence) and not speaks():
        print(f"{name} (process {os.environ['RANK']}): {sentence}", file=sys.stderr)


def _everyone_says(sentence: str) -> bool:
    """Whether all processes met it; one in a recipe they all meet, before anything is loaded to ask the others with."""
    if "ssl_transfer.distributed" not in sys.modules:
        return True
    from ssl_transfer.distributed import everyone_says

    return everyone_says(sentence)


def _nobody_reads() -> bool:
    """Whether the output goes to a pipe whose other end is closed."""
    poll = select.poll()
    poll.register(sys.stdout, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _give_up_output() -> None:
    """Let what could not be printed go nowhere, or Python would try once more at its end."""
    if sys.stdout is None:
        return
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
