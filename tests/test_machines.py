"""Machines that share no disk: what each reads for itself, what the main one reads for all, and who is gone."""

import argparse
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from PIL import Image

from ssl_transfer import config, recipe, watch
from ssl_transfer.building.data import OpenSplits
from ssl_transfer.context import Context
from ssl_transfer.distributed import Machine
from ssl_transfer.errors import UserError
from ssl_transfer.evaluating import load_features
from tests.attacks.programs import STUDENT, TEACHER
from tests.processes import find_free_port, on_two_processes

pytestmark = pytest.mark.slow

PHOTOS = """\
name: photos
seed: 0
data: {dataset: folder, root: photos, image_size: 8, batch_size: 8, augment: simclr, workers: 0}
model: {backbone: tiny_convnet}
task: {kind: simclr, projection_dim: 8}
optim: {name: sgd, lr: 0.01}
train: {epochs: 1, precision: full, cpu_threads: 1}
score: []
"""


def place(rank: int, root: Path) -> None:
    """A working folder of this process alone, as on a machine of its own."""
    own = root / str(rank)
    for number in range(16):
        path = own / "photos" / "train" / f"c{number % 2}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (number, 3 * number, 0)).save(path)
    (own / "photos.yaml").write_text(PHOTOS)
    (own / "teacher.yaml").write_text(TEACHER)
    (own / "student.yaml").write_text(STUDENT.replace("epochs: 2", "epochs: 1"))


def check_machines(rank: int, root: Path) -> None:
    place(rank, root)
    os.chdir(root / str(rank))
    os.environ["LOCAL_RANK"] = "0"  # the first process of its machine

    # The teacher's run and the student's lie on the first machine alone: trained, scored, and found done again.
    folder = recipe.run(config.load(Path("student.yaml")))
    assert (folder / "scores.json").exists() == (folder / "model.safetensors").exists() == (rank == 0)
    recipe.run(config.load(Path("student.yaml")))
    assert Path("runs/teacher-memory").exists()  # each machine's own

    # The programs in eval/ find it there, too.
    given = argparse.Namespace(
        precision="float32", dataset=None, root=None, image_size=None, layer="output", cache=None
    )
    found = load_features("runs/student", given)
    assert (len(found.features.train_x), len(found.features.test_x)) == (192, 355) and (
        folder / "features"
    ).exists() == (rank == 0)

    photos = config.load(Path("photos.yaml"))
    context = Context.start(photos)
    assert context.machine.count == 2 and context.machine.first
    for resident in ("true", "false"):
        given = config.load(Path("photos.yaml"), [f"data.resident={resident}"])
        assert len(OpenSplits(context).opened(given, "training")) == 16

        # One machine lacks a file, has another, or cannot read one.
        seventh = Path("photos/train/c1/7.png")
        whole = seventh.read_bytes()
        if rank == 1:
            seventh.unlink()
        with pytest.raises(
            UserError, match=r"process 1 on \S+ reads for the split train of folder 15 images and .* 16"
        ):
            OpenSplits(context).opened(given, "training")
        if rank == 1:
            Image.new("RGB", (8, 8), (0, 0, 9)).save(seventh)
        with pytest.raises(UserError, match="16 images as process 0 .*, but of other content, names or labels: bring"):
            OpenSplits(context).opened(given, "training")
        if rank == 1:
            seventh.write_bytes(b"nothing")
        with pytest.raises(UserError, match=r"process 1 on \S+: 1 of 16 images cannot be decoded: .*7\.png"):
            OpenSplits(context).opened(given, "training")
        seventh.write_bytes(whole)
        os.utime(seventh, ns=(1, 1))

    with pytest.raises(
        UserError, match=r"process 1 on .* was not started as process 0 on .*: optim.lr was 0.01, is 0.02: use"
    ):
        recipe.run(config.load(Path("photos.yaml"), ["optim.lr=0.02"] if rank else []))


def test_machines_share_what_the_main_one_reads_and_refuse_to_differ(tmp_path):
    on_two_processes(check_machines, tmp_path)


def check_one_machine(rank: int, root: Path) -> None:
    os.chdir(root)
    read = []
    context = Context.start(config.load(root / "photos.yaml"))
    assert context.machine.count == 1 and context.machine.first == (rank == 0)
    made = context.once_a_machine(lambda: read.append(rank) or 7)
    assert (made, read) == ((7, [0]) if rank == 0 else (None, []))
    assert context.machine.share(made) == 7
    for resident in ("true", "false"):
        given = config.load(root / "photos.yaml", [f"data.resident={resident}"])
        if rank == 1:
            os.chdir("/")  # where there are no images
        images = OpenSplits(context).opened(given, "training")
        os.chdir(root)
        assert len(images) == 16 and images.labels.bincount().tolist() == [8, 8]
        found = [None, None]
        dist.all_gather_object(found, images.pixels[3:5].sum().item())
        assert found[0] == found[1] > 0


def test_one_process_of_a_machine_reads_for_all_of_its_processes(tmp_path):
    place(0, tmp_path)
    on_two_processes(check_one_machine, tmp_path / "0")


def check_vanished(rank: int, root: Path) -> None:
    watch._TICK = 0.1
    watch._end = lambda sentence: (root / f"{rank}").write_text(sentence)
    watch.watch_others()
    if rank == 1:
        watch.stop_watching()
    dist.barrier()
    looking = [thread.watch for thread in threading.enumerate() if isinstance(thread, watch._Part)]
    wait_for(lambda: all(one._rounds > 2 * watch._SILENT for one in looking))
    assert not list(root.iterdir())  # who is done is not gone
    dist.barrier()
    watch.stop_watching()
    watch.watch_others()
    if rank == 1:
        os.kill(os.getpid(), 19)  # SIGSTOP; it is woken below
    else:
        wait_for((root / "0").exists)


def wait_for(happened: Callable[[], bool]) -> None:
    """However slow the machine is: nothing here is told from anything else by the time that it takes."""
    until = time.monotonic() + 120
    while not happened() and time.monotonic() < until:
        time.sleep(0.1)


def test_who_is_silent_is_noticed(tmp_path):
    """A process that is stopped is as silent as one whose machine is gone."""
    code = (
        "import sys; from tests.test_machines import *; from tests.processes import _check; rank = int(sys.argv[1]);"
        f"_check(rank, int(sys.argv[2]), check_vanished, Path({str(tmp_path)!r}))"
    )
    port = find_free_port()
    processes = [subprocess.Popen([sys.executable, "-c", code, str(rank), str(port)]) for rank in range(2)]
    wait_for((tmp_path / "0").exists)
    processes[1].send_signal(18)  # SIGCONT
    assert [process.wait(60) for process in processes] == [0, 0]
    assert "have not been heard of" in (tmp_path / "0").read_text()


def check_tensor(rank: int) -> None:
    value = torch.arange(10.0) * (rank == 0)
    Machine().share_tensor(value)
    assert torch.equal(value, torch.arange(10.0))


def test_a_tensor_is_shared_within_a_machine():
    on_two_processes(check_tensor)
