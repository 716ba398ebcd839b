"""A disk that is full, at whatever moment, costs a sentence and nothing else."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.attacks.programs import RUN, call, different, place

pytestmark = pytest.mark.slow
MIB = 2**20


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A disk of 16 MiB on which the runs are to lie."""
    folder = place(tmp_path / "there")
    (folder / "runs").mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={16 * MIB}", "tmpfs", str(folder / "runs")]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a small disk cannot be mounted here, which takes Linux and its rights")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder / "runs")], check=True)


def fill(folder: Path, *, but: int) -> None:
    """Leave ``but`` KiB of the disk."""
    free = shutil.disk_usage(folder / "runs").free
    (folder / "runs" / "filler").write_bytes(bytes(max(0, free - but * 1024)))


@pytest.mark.parametrize("free", [0, 16, 200, 600, 1000])
def test_training_on_a_disk_that_is_full_after_some_KiB(unbroken, small_disk, free):
    fill(small_disk, but=free)
    ended = call(small_disk, *RUN)
    assert ended.in_a_sentence and "No space left" in ended.said or ended.code == 0, ended
    if free <= 200:
        assert ended.code == 2 and "runs/" in ended.said
    (small_disk / "runs" / "filler").unlink()
    ended = call(small_disk, *RUN)
    assert ended.code == 0, ended.said
    assert different(small_disk / "runs", unbroken / "runs") == []


def test_what_follows_training_on_a_full_disk(unbroken, small_disk):
    shutil.copytree(unbroken / "runs", small_disk / "runs", dirs_exist_ok=True)
    shutil.rmtree(small_disk / "runs/student/features")
    (small_disk / "runs/student/scores.json").unlink()
    fill(small_disk, but=0)
    export = ("export", "runs/student", "--to", "runs/out")
    for words in (RUN, ("score", "runs/student"), export, (*export, "--format", "torch")):
        ended = call(small_disk, *words)
        assert ended.in_a_sentence and "No space left" in ended.said, (words, ended)
    ended = call(small_disk, "knn.py", "runs/student", "--k", "5")
    assert ended.code == 0 and "features are not kept" in ended.said and "kNN 5" in ended.said, ended
    (small_disk / "runs" / "filler").unlink()
    fill(small_disk, but=28)  # where the small files of a run have room, and its features not all
    ended = call(small_disk, "score", "runs/student")
    assert ended.in_a_sentence and "runs/student/features/" in ended.said, ended
    (small_disk / "runs" / "filler").unlink()
    assert call(small_disk, *RUN).code == 0
    assert different(small_disk / "runs", unbroken / "runs") == []
