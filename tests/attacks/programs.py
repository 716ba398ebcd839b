"""Commands in processes of their own, which can be killed, and all that a run leaves behind."""

import json
import multiprocessing
import os
import re
import signal
import sys
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple

from ssl_transfer.models.checkpoint import read_tensors, tensors_hash

# Forked from a server that has loaded what a run loads: a trial costs the run, and not seconds of imports.
FORKED = multiprocessing.get_context("forkserver")
FORKED.set_forkserver_preload(
    [
        *("ssl_transfer.recipe", "ssl_transfer.evaluation", "ssl_transfer.export.folder", "ssl_transfer.report.plots"),
        *("jinja2", "matplotlib.backends.backend_svg", "sklearn.datasets"),
    ]
)
TEACHER = """\
name: teacher
seed: 0
data: {dataset: digits, images: 192, batch_size: 64, augment: digits}
model: {backbone: tiny_convnet}
task: {kind: simclr, projection_dim: 16}
optim: {name: adamw, lr: 1.0e-3, warmup_epochs: 0}
train: {epochs: 1, log_every: 2, precision: full, cpu_threads: 1}
score: []
"""
STUDENT = """\
name: student
seed: 0
data: {dataset: digits, images: 192, batch_size: 64, augment: digits, fixed_views: 2}
model: {backbone: tiny_convnet}
task: {kind: relaxed_contrastive, teacher: {recipe: teacher.yaml, memory: float32}}
optim: {name: adamw, lr: 1.0e-3, warmup_epochs: 0}
train: {epochs: 2, checkpoint_every: 1, log_every: 2, precision: full, cpu_threads: 1, ema: 0.9}
score: [{kind: knn, k: [5]}]
"""
RUN = ("run", "student.yaml")


class Ended(NamedTuple):
    """How a command ended; after a signal that killed it the code is the signal's number below zero."""

    code: int
    said: str

    @property
    def in_a_sentence(self) -> bool:
        """Whether it refused as it should: by its exit code, and in one line of its own."""
        own = re.findall(r"^(?:ssl-transfer|\w+\.py)(?: \(process \d\))?: .*", self.said, re.MULTILINE)
        return self.code in (2, 130) and len(own) == 1 and "Traceback" not in self.said


def place(folder: Path) -> Path:
    """Both recipes, in a folder that they can run in."""
    folder.mkdir(parents=True)
    (folder / "teacher.yaml").write_text(TEACHER)
    (folder / "student.yaml").write_text(STUDENT)
    return folder


def nothing() -> None:
    """What a command does before it begins, if it is not told otherwise."""


def start(
    folder: Path, *words: str, before: Callable[[], None] = nothing, log: str = "said.txt", **environment: str
) -> BaseProcess:
    """Begin a command of ``ssl-transfer``, or a program of ``eval/``; what it says goes to the file ``log``."""
    process = FORKED.Process(target=_command, args=(folder, words, before, log, environment))
    process.start()
    return process


def end_of(process: BaseProcess, said: Path, within: float = 120.0) -> Ended:
    """Wait for the end of a command.

    Raises:
        TimeoutError: it hangs.
    """
    process.join(within)
    if process.exitcode is None:
        process.kill()
        raise TimeoutError(f"no end within {within} s: {said.read_text(errors='replace')}")
    return Ended(process.exitcode, said.read_text(errors="replace") if said.exists() else "")


def call(folder: Path, *words: str, before: Callable[[], None] = nothing) -> Ended:
    """Execute one command in ``folder``."""
    (folder / "said.txt").unlink(missing_ok=True)
    return end_of(start(folder, *words, before=before), folder / "said.txt")


def _command(
    folder: Path, words: tuple[str, ...], before: Callable[[], None], log: str, environment: dict[str, str]
) -> None:
    os.chdir(folder)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for descriptor in (1, 2):
        os.dup2(output, descriptor)
    sys.stdout, sys.stderr = (open(descriptor, "w", buffering=1, closefd=False) for descriptor in (1, 2))
    os.environ.update(environment)
    before()
    if words[0].endswith(".py"):
        import runpy

        sys.argv = list(words)
        runpy.run_path(str(Path(__file__).parents[2] / "eval" / words[0]), run_name="__main__")
    else:
        from ssl_transfer.cli import main

        main(words)


class AtOperation:
    """Let the process be sent a signal before its ``at``-th operation that changes a file below its folder.

    Operations are opening for writing, renaming, removing and making folders; ``count`` writes how many there were.
    """

    def __init__(self, at: int, number: signal.Signals = signal.SIGKILL, counted: str | None = None):
        self.at, self.number, self.counted, self.count = at, number, counted, 0

    def __call__(self) -> None:
        self.here = os.path.realpath("runs")
        sys.addaudithook(self._see)

    def _see(self, event: str, given: tuple[Any, ...]) -> None:
        changes = event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate")
        if event == "open":
            flags = given[2]
            changes = isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR))
        if not changes or not isinstance(given[0], str | os.PathLike):
            return
        if not os.path.realpath(given[0]).startswith(self.here):
            return
        self.count += 1
        if self.counted is not None:
            with open(self.counted, "w") as file:
                file.write(str(self.count))
        if self.count == self.at:
            os.kill(os.getpid(), self.number)


VOLATILE = {"images_per_second", "seconds", "date"}


def everything(folder: Path) -> dict[str, Any]:
    """All files below ``folder`` by name, without times and speeds: what must not depend on how often a run stopped."""
    return {str(path.relative_to(folder)): _content(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def _content(path: Path) -> Any:
    try:
        return _read(path)
    except ValueError:  # damaged
        return path.read_bytes()


def _read(path: Path) -> Any:
    if path.name == "metrics.jsonl":
        return [_steady(json.loads(line)) for line in path.read_text().splitlines()]
    if path.name in ("run.json", "scores.json", "details.json"):
        return _steady(json.loads(path.read_text()))
    if path.name == "report.html":
        text = re.sub(r"\d\S* \w+ in training steps, [\d,]+ images/s", "(time)", path.read_text())
        for speed in _speeds(path.with_name("details.json")):
            text = text.replace(f"<td>{speed:,.0f}</td>", "<td>(speed)</td>")
        return re.sub(r"\d{4}-\d\d-\d\dT[\d:+]+", "(date)", text)
    if path.suffix == ".safetensors":  # which writes the notes in its header in any order
        tensors, notes = read_tensors(path)
        return tensors_hash(tensors), notes
    return path.read_bytes()


def _speeds(details: Path) -> list[float]:
    """What the report says of how many images a second each model sees."""
    try:
        return [size["images_per_second"] for size in json.loads(details.read_text())["sizes"].values()]
    except (OSError, ValueError, KeyError, TypeError):  # damaged, or none
        return []


def _steady(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _steady(value) for key, value in content.items() if key not in VOLATILE}
    return [_steady(value) for value in content] if isinstance(content, list) else content


def different(folder: Path, other: Path) -> list[str]:
    """The names of what is not the same in two folders."""
    found, expected = everything(folder), everything(other)
    return [name for name in sorted(found.keys() | expected.keys()) if found.get(name) != expected.get(name)]
