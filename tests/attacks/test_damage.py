"""Whichever file of a run folder is damaged, and however: a command gives what it gave, or says in one sentence why."""

import random
import shutil
from pathlib import Path

import pytest

from tests.attacks.programs import RUN, AtOperation, call, different, place

pytestmark = pytest.mark.slow


def flip(path: Path) -> None:
    content, draw = bytearray(path.read_bytes()), random.Random(path.name)
    for _ in range(5):
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def zero(path: Path) -> None:
    half = path.stat().st_size // 2
    path.write_bytes(path.read_bytes()[:half] + bytes(half))


def empty(path: Path) -> None:
    path.write_bytes(b"")


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def dangle(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


DAMAGES = (flip, cut, zero, empty, folder, dangle)
SCORED = ("recipe.yaml", "run.json", "config.json", "model.safetensors", "scores.json", "metrics.jsonl", "report.html")


def judge(ended, made: Path, expected: Path, name: str, harmless: set[str]) -> None:
    """The same files as without damage, but those that nobody reads; or one sentence."""
    if ended.code == 0 and "Traceback" not in ended.said:
        found = {path for path in different(made, expected) if not path.endswith("nowhere")}  # made at a link's end
        assert found <= harmless, name
    else:
        assert ended.in_a_sentence, (name, ended)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_of_a_finished_run(unbroken, tmp_path, damage):
    features = sorted(path.name for path in (unbroken / "runs/student/features").iterdir())
    for name in (*SCORED, f"features/{features[0]}"):
        made = tmp_path / name.replace("/", "-")
        shutil.copytree(unbroken, made)
        damage(made / "runs/student" / name)
        ended = call(made, "score", "runs/student")
        # What was logged is for people to read; so are the curves of it, and what is not whole is counted.
        harmless = {name, "report.html"} if name == "metrics.jsonl" else set()
        if "features are not kept" in ended.said:
            harmless = {name}
        judge(ended, made / "runs/student", unbroken / "runs/student", name, harmless)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory) -> Path:
    """A run that was killed on its way, with a state to go on from."""
    made = place(tmp_path_factory.mktemp("stopped") / "there")
    for at in range(60, 300, 2):
        call(made, *RUN, before=AtOperation(at))
        if (made / "runs/student/state/state.pt").exists():
            assert (made / "runs/student/metrics.jsonl").read_text().count("\n") >= 3
            return made
    raise AssertionError("it was never killed behind its first state")


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_of_a_stopped_run(unbroken, stopped, tmp_path, damage):
    memory = next(path.relative_to(stopped) for path in (stopped / "runs/teacher-memory").rglob("0.bin"))
    names = [f"runs/student/{name}" for name in ("recipe.yaml", "run.json", "metrics.jsonl", "state/state.pt")]
    for name in (*names, "runs/teacher/model.safetensors", str(memory)):
        made = tmp_path / name.replace("/", "-")
        shutil.copytree(stopped, made)
        damage(made / name)
        ended = call(made, *RUN)
        harmless = {"student/metrics.jsonl", "student/report.html"} if name.endswith("metrics.jsonl") else set()
        if harmless and ended.code == 0:
            assert "has lost" in ended.said or not set(different(made / "runs", unbroken / "runs")), (name, ended)
        judge(ended, made / "runs", unbroken / "runs", name.removeprefix("runs/"), harmless)
