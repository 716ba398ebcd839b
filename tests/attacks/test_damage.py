"""Whichever file of a run folder is damaged, and however: a command gives what it gave, or says in one sentence why."""

import random
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from ssl_transfer import runs
from ssl_transfer.errors import UserError
from ssl_transfer.models.checkpoint import load_model
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


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("run.json", lambda folder: replace(runs.read_info(folder), seconds=0.0, images_per_second=0.0)),
        ("scores.json", lambda folder: runs.read_scores(folder).scores),
        ("config.json", lambda folder: load_model(folder)[1]),
    ],
)
def test_a_flipped_bit_is_never_read_as_another_value(unbroken, tmp_path, name, read):
    made = tmp_path / "student"
    shutil.copytree(unbroken / "runs/student", made)
    whole, content, draw = read(made), (made / name).read_bytes(), random.Random(0)
    noticed = 0
    for _ in range(60):
        damaged = bytearray(content)
        damaged[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        (made / name).write_bytes(damaged)
        try:
            assert read(made) == whole
        except (UserError, ValueError):
            noticed += 1
    assert noticed > 40


def test_a_recipe_that_is_not_the_runs_is_not_taken_for_it(unbroken, tmp_path):
    made = tmp_path / "made"
    shutil.copytree(unbroken, made)
    recipe = made / "runs/student/recipe.yaml"
    recipe.write_text(recipe.read_text().replace("seed: 0", "seed: 4"))
    for words in (("score", "runs/student"), ("export", "runs/student", "--to", "out"), ("compare", "runs/student")):
        ended = call(made, *words)
        assert ended.in_a_sentence and "not the recipe that the run was made by" in ended.said, ended
    assert call(made, *RUN).code == 0 and different(made / "runs", unbroken / "runs") == []


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
        if name == str(memory):  # rows that no step asks for again are not looked at
            harmless = {str(memory.relative_to("runs"))}
        elif harmless and ended.code == 0:
            assert "has lost" in ended.said or not set(different(made / "runs", unbroken / "runs")), (name, ended)
        judge(ended, made / "runs", unbroken / "runs", name.removeprefix("runs/"), harmless)


def test_a_teacher_whose_weights_are_gone_is_trained_again_as_the_sentence_says(unbroken, stopped, tmp_path):
    made = tmp_path / "made"
    shutil.copytree(stopped, made)
    (made / "runs/teacher/model.safetensors").unlink()
    ended = call(made, *RUN)
    assert ended.in_a_sentence and "bring the file back, or remove the folder to train again" in ended.said, ended
    shutil.rmtree(made / "runs/teacher")
    assert call(made, *RUN).code == 0 and different(made / "runs", unbroken / "runs") == []
