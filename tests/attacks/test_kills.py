"""Whenever a run is killed, the same command ends with the same files."""

import os
import random
import signal
import time
from pathlib import Path

import psutil
import pytest
from PIL import Image

from tests.attacks.programs import RUN, AtOperation, call, different, end_of, place, start
from tests.processes import find_free_port

pytestmark = pytest.mark.slow

KILLS, POINTS = 6, 8  # how many of each


def finished_like(unbroken: Path, folder: Path) -> None:
    """Run again until the end, and compare every file."""
    ended = call(folder, *RUN)
    assert ended.code == 0 and "Traceback" not in ended.said, ended.said
    assert different(folder / "runs", unbroken / "runs") == []


def test_random_kills_change_nothing(unbroken, tmp_path):
    draw = random.Random(0)
    began = time.monotonic()
    assert call(place(tmp_path / "timed"), *RUN).code == 0
    took = time.monotonic() - began
    killed = 0
    for trial in range(KILLS):
        folder = place(tmp_path / str(trial))
        for _ in range(draw.choice([1, 1, 2])):
            process = start(folder, *RUN)
            time.sleep(draw.uniform(0, 0.8 * took))
            process.kill()
            process.join()
            killed += process.exitcode == -signal.SIGKILL
        finished_like(unbroken, folder)
    assert killed  # how many, a busy machine decides: some are sent after the end


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_stop_before_any_change_of_a_file_changes_nothing(unbroken, tmp_path, number):
    operations = int((unbroken / "operations").read_text())
    points = POINTS if number == signal.SIGKILL else POINTS // 2
    for at in range(1 + random.Random(number).randrange(3), operations, operations // points):
        folder = place(tmp_path / str(at))
        ended = call(folder, *RUN, before=AtOperation(at, number))
        if number == signal.SIGKILL:
            assert ended.code == -number
        else:
            assert ended.code == 130 and ended.in_a_sentence, (at, ended)
        finished_like(unbroken, folder)


def two(folder: Path, **more: str) -> list:
    """The run on two processes, as a launcher starts them."""
    port = str(find_free_port())
    shared = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": port, **more}
    ranks = [{"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(2)]
    return [start(folder, *RUN, log=f"said{rank['RANK']}.txt", **shared, **rank) for rank in ranks]


def ends_of(folder: Path, processes: list) -> list:
    return [end_of(process, folder / f"said{rank}.txt") for rank, process in enumerate(processes)]


@pytest.mark.parametrize("victim", [0, 1])
def test_where_one_of_two_processes_is_killed_the_other_ends_and_both_go_on(tmp_path, victim):
    whole, folder = place(tmp_path / "whole"), place(tmp_path / "killed")
    assert [ended.code for ended in ends_of(whole, two(whole))] == [0, 0]
    processes = two(folder)
    log = folder / "runs" / "student" / "metrics.jsonl"
    while not log.exists() and all(process.is_alive() for process in processes):
        time.sleep(0.01)
    processes[victim].kill()
    began = time.monotonic()
    other = ends_of(folder, processes)[1 - victim]
    assert other.code == 2 and "Traceback" not in other.said and time.monotonic() - began < 30, other
    assert [ended.code for ended in ends_of(folder, two(folder))] == [0, 0]
    assert different(folder / "runs", whole / "runs") == []


STREAMED = """\
name: streamed
seed: 0
data: {dataset: folder, root: images, image_size: 16, batch_size: 8, augment: simclr, workers: 1, resident: false}
model: {backbone: tiny_convnet}
task: {kind: simclr, projection_dim: 8}
optim: {name: sgd, lr: 0.01, warmup_epochs: 0}
train: {epochs: 10000, log_every: 1, precision: full, cpu_threads: 1}
score: []
"""


def test_workers_end_with_a_killed_main_process(tmp_path):
    for split in ("train", "test"):
        for number in range(16):
            path = tmp_path / "images" / split / f"class{number % 2}" / f"{split}{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (16, 16), (number, 0, 0)).save(path)
    (tmp_path / "streamed.yaml").write_text(STREAMED)
    process = start(tmp_path, "run", "streamed.yaml")
    log = tmp_path / "runs" / "streamed" / "metrics.jsonl"
    while not log.exists() and process.is_alive():
        time.sleep(0.05)
    assert process.is_alive(), (tmp_path / "said.txt").read_text()
    helpers = psutil.Process(process.pid).children(recursive=True)
    assert len(helpers) >= 2  # the worker and the server that forks it
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert psutil.wait_procs(helpers, timeout=20)[1] == []
