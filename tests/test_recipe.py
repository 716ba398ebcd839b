"""Whole runs on real digits: any number of processes, stopped and continued, taught and scored."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator
from accelerate.tracking import GeneralTracker
from safetensors.torch import load_file

from ssl_transfer import config, context, recipe, runs
from ssl_transfer.context import Context, device_name, versions
from ssl_transfer.errors import UserError
from ssl_transfer.models.checkpoint import ModelSpec, build_model, load_model, save_model
from ssl_transfer.report.views_sheet import draw_views
from ssl_transfer.rescore import rescore
from ssl_transfer.training.engine import Interrupted

ROOT = Path(__file__).parent.parent
TRANSFER = ROOT / "recipes" / "digits" / "transfer.yaml"
# Small enough for a test, and divisible by one, two and three processes.
SMALL = [
    "data.batch_size=96",
    "train.steps=20",
    "train.precision=full",
    "train.cpu_threads=1",
    "task.teacher.recipe.data.batch_size=96",
    "task.teacher.recipe.train.steps=4",
    "task.teacher.recipe.train.precision=full",
    "score=[]",
]


def load(folder: Path, *overrides: str, base: Path = TRANSFER) -> config.Recipe:
    return config.load(base, [*SMALL, f"train.runs={folder}", *overrides])


def launch(world: int, port: int, folder: Path, *overrides: str) -> None:
    """Run the recipe as a person does."""
    launcher = [sys.executable, "-m", "accelerate.commands.launch"]
    several = ["--multi_gpu", "--num_processes", str(world), "--main_process_port", str(port)] if world > 1 else []
    run = ["-m", "ssl_transfer", "run", str(TRANSFER), *SMALL, f"train.runs={folder}", *overrides]
    done = subprocess.run([*launcher, *several, *run], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


def losses(run: Path) -> torch.Tensor:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(len(lines)))
    return torch.tensor([line["loss"] for line in lines], dtype=torch.float64)


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model.safetensors")


def assert_close(run: Path, expected: Path) -> None:
    torch.testing.assert_close(losses(run), losses(expected), rtol=1e-5, atol=0)
    found = weights(run)
    for name, weight in weights(expected).items():
        torch.testing.assert_close(
            found[name], weight, rtol=1e-4, atol=1e-4, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.fixture(scope="module")
def one_process(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("one")
    recipe.run(load(folder))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 3])
def test_a_run_does_not_depend_on_the_number_of_processes(one_process, tmp_path, free_port, world):
    launch(world, free_port, tmp_path)
    for name in ("digits-simclr", "digits-transfer"):
        assert_close(tmp_path / name, one_process / name)


@pytest.mark.slow
@pytest.mark.parametrize("stop_after", [1, 7, 19])
def test_a_stopped_run_ends_with_the_same_bits(one_process, tmp_path, stop_after):
    given = load(tmp_path)

    running = Context.start(given)
    recipe.train(given.task.teacher.recipe, running, recipe.OpenSplits(running), lambda step: False)
    with pytest.raises(Interrupted):
        recipe.run(given, stop=lambda step: step == stop_after)
    assert not (tmp_path / "digits-transfer" / "model.safetensors").exists()
    recipe.run(given)
    expected = weights(one_process / "digits-transfer")
    found = weights(tmp_path / "digits-transfer")
    assert all(torch.equal(weight, found[name]) for name, weight in expected.items())
    assert torch.equal(losses(tmp_path / "digits-transfer"), losses(one_process / "digits-transfer"))


@pytest.mark.slow
def test_a_run_continues_on_another_number_of_processes(one_process, tmp_path, free_port):
    with pytest.raises(Interrupted):
        recipe.run(load(tmp_path), stop=lambda step: step == 11)  # the teacher is done after 4
    launch(2, free_port, tmp_path)
    assert_close(tmp_path / "digits-transfer", one_process / "digits-transfer")


@pytest.mark.slow
def test_a_teacher_is_reused_resumed_or_made_anew(tmp_path, capsys):
    with pytest.raises(Interrupted, match="stopped after step 2 of 4"):
        recipe.run(load(tmp_path, "train.steps=1"), stop=lambda step: step == 2)
    recipe.run(load(tmp_path, "train.steps=1"))  # resumes the teacher
    teacher = tmp_path / "digits-simclr" / "model.safetensors"
    made = teacher.stat().st_mtime_ns
    recipe.run(load(tmp_path, "train.steps=2", "name=second"))
    assert "digits-simclr is trained (4 steps)" in capsys.readouterr().out
    assert teacher.stat().st_mtime_ns == made

    changed = load(tmp_path, "train.steps=1", "name=third", "task.teacher.recipe.optim.lr=1.0e-4")
    recipe.run(changed)
    said = " ".join(capsys.readouterr().out.split())
    assert "holds another recipe (optim.lr was 0.002, is 0.0001)" in said
    assert runs.folder_of(changed.task.teacher.recipe)[0].name.startswith("digits-simclr-")
    assert teacher.stat().st_mtime_ns == made


@pytest.mark.slow
def test_a_teacher_trains_in_its_own_arithmetic_whatever_the_students(one_process, tmp_path):
    recipe.run(load(tmp_path, "train.steps=1", "train.precision=bf16"))
    found = weights(tmp_path / "digits-simclr")
    expected = weights(one_process / "digits-simclr")
    assert all(torch.equal(weight, found[name]) for name, weight in expected.items())


def test_a_teacher_in_training_elsewhere_is_waited_for(tmp_path, capsys):
    with (
        runs.exclusive_folder(load(tmp_path).task.teacher.recipe, lambda folder, seconds: None),
        pytest.raises(Interrupted, match="stopped while waiting for .*digits-simclr"),
    ):
        recipe.run(load(tmp_path), stop=lambda step: step == 0)
    assert "digits-simclr, in which another program trains" in " ".join(capsys.readouterr().out.split())


# A teacher after one step and a student after two: what does not depend on how long they train.
SHORT = ["train.steps=2", "task.teacher.recipe.train.steps=1"]


def test_a_run_says_and_writes_down_what_it_did(tmp_path, capsys):
    given = load(tmp_path, *SHORT, "score=[{kind: knn, k: [5]}]")
    folder = recipe.run(given)
    assert folder == tmp_path / "digits-transfer"
    info, teacher = runs.read_info(folder), tmp_path / "digits-simclr"
    expected = runs.RunInfo(
        identity=config.identity_hash(given),
        steps=2,
        total_steps=2,
        seconds=info.seconds,
        images_per_second=info.images_per_second,
        finished=True,
        device=device_name(torch.device("cpu")),
        precision="float32",
        versions=versions(),
        teacher_loss=info.teacher_loss,
        origin={"teacher weights": info.origin["teacher weights"]},
    )
    assert info == expected and info.seconds > 0 and info.images_per_second > 0
    model, spec = load_model(folder)
    assert spec.backbone == "cifar_resnet8" and model.head is None
    assert {path.name for path in folder.iterdir()} >= {"recipe.yaml", "metrics.jsonl", "scores.json", "report.html"}
    assert not (folder / "state" / "state.pt").exists()
    assert [losses(run).shape for run in (folder, teacher)] == [(2,), (1,)]
    scored = {score.role for score in runs.read_scores(folder).scores}
    assert scored == {"teacher", "student", "untrained", "raw pixels"}
    said = " ".join(capsys.readouterr().out.split())
    how = f"of 96 images on 1 x {info.device} in float32; run folder"
    assert f"digits-simclr: simclr, tiny_convnet, 1 steps {how} {teacher}" in said
    assert f"digits-transfer: relaxed_contrastive, cifar_resnet8, 2 steps {how} {folder}" in said
    assert said.endswith(f"run folder: {folder}")

    (folder / "report.html").unlink()
    (folder / "state" / "state.pt").write_bytes(b"of a run that was killed before it was complete")
    assert recipe.run(given) == folder
    said = " ".join(capsys.readouterr().out.split())
    assert f"{folder} is trained (2 steps)" in said and "digits-simclr" not in said
    assert (folder / "report.html").is_file() and not (folder / "state" / "state.pt").exists()
    (folder / "report.html").write_text("a report that is there is left as it is")
    recipe.run(given)
    assert (folder / "report.html").read_text() == "a report that is there is left as it is"
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match=f"{folder} was trained to its end but has no .*: bring the file back, or rem"):
        recipe.run(given)


def test_a_stopped_run_says_how_far_it_is_and_goes_on_from_there(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(recipe, "doubts", lambda given, teachers, images: [f"{len(teachers)} dubious"])
    given = load(tmp_path, *SHORT)
    with pytest.raises(Interrupted, match="stopped after step 1 of 2"):
        recipe.run(given, stop=lambda step: step == 1)  # with which the teacher is done
    info = runs.read_info(tmp_path / "digits-transfer")
    assert (info.steps, info.total_steps, info.finished) == (1, 2, False) and info.seconds > 0
    assert capsys.readouterr().out.count("dubious") == 1  # of the student's teacher; its own recipe has none
    with pytest.raises(Interrupted, match="digits-transfer is trained, and the same command goes on from there"):
        recipe.run(given, stop=lambda step: step == 0)
    done = runs.read_info(tmp_path / "digits-transfer")
    assert (done.steps, done.finished) == (2, True) and done.seconds > info.seconds
    said = capsys.readouterr().out
    assert "digits-simclr is trained (1 steps)" in said and "dubious" not in said
    assert len(losses(tmp_path / "digits-transfer")) == 2


def test_a_stop_is_heard_while_the_teachers_memory_is_filled(tmp_path):
    words = "stopped while the teacher's memory was filled; run the same command again to continue"
    with pytest.raises(Interrupted, match=words):
        recipe.run(load(tmp_path, *SHORT, "data.fixed_views=1"), stop=lambda step: step == 0)


def test_the_average_of_the_weights_is_what_is_kept_and_the_state_goes_on_with_it(tmp_path):
    first, second = (
        weights(recipe.run(load(tmp_path, *SHORT, f"train.steps={steps}", f"name=plain{steps}"))) for steps in (1, 2)
    )
    average = load(tmp_path, *SHORT, "train.ema=0.75", "name=average")
    with pytest.raises(Interrupted):
        recipe.run(average, stop=lambda step: step == 1)
    recipe.run(average)
    kept, spec = load_model(tmp_path / "average")
    torch.manual_seed(0)
    start = build_model(spec)
    for name, weight in start.named_parameters():
        expected = 0.75 * (0.75 * weight + 0.25 * first[name]) + 0.25 * second[name]
        torch.testing.assert_close(kept.get_parameter(name), expected, rtol=1e-5, atol=1e-7, msg=name)


class Tracker(GeneralTracker):
    """Keeps what accelerate hands to a tracker."""

    name, requires_logging_directory = "kept", False

    def __init__(self):
        super().__init__()
        self.kept: list[object] = []

    @property
    def tracker(self) -> "Tracker":
        return self

    def store_init_configuration(self, values: dict) -> None:
        self.kept.append(values)

    def log(self, values: dict, step: int, **further: object) -> None:
        self.kept.append((step, values["loss"]))

    def finish(self) -> None:
        self.kept.append("finished")


def test_a_tracker_gets_the_recipe_the_losses_and_its_end(tmp_path, monkeypatch):
    tracker, names, start = Tracker(), [], Accelerator.init_trackers
    monkeypatch.setattr(context, "find_spec", lambda name: name)
    monkeypatch.setattr(context, "Accelerator", lambda **settings: Accelerator(**settings | {"log_with": tracker}))
    monkeypatch.setattr(
        Accelerator, "init_trackers", lambda self, name, **more: (names.append(name), start(self, name, **more))
    )
    base = ROOT / "recipes" / "digits" / "simclr.yaml"
    small = ["train.tracker=wandb", "train.steps=2", "train.log_every=1", "train.precision=full", "train.cpu_threads=1"]
    given = config.load(base, [*small, f"train.runs={tmp_path}", "score=[]"])
    found = losses(recipe.run(given)).tolist()
    assert names == ["digits-simclr"]
    assert tracker.kept == [{"recipe": config.dump(given)}, (0, found[0]), (1, found[1]), "finished"]


def test_views_are_drawn_of_what_a_run_would_train_on(tmp_path):
    given = load(tmp_path, "data.held_out=100", "seed=5")
    recipe.show_views(given, tmp_path / "of the recipe.png")
    running = Context.start(given)
    images = recipe.OpenSplits(running).opened(given, "training")
    draw_views(recipe.build_batches(given, images, running), tmp_path / "expected.png")
    assert (tmp_path / "of the recipe.png").read_bytes() == (tmp_path / "expected.png").read_bytes()
    with pytest.raises(UserError, match="is no name for a picture"):
        recipe.show_views(given, tmp_path / "views.txt")


def test_a_finished_student_of_another_teacher_is_not_taken_for_this_ones(tmp_path, capsys):
    spec = ModelSpec("cifar_resnet8", "default", 1, 8, (0.5,), (0.5,))
    given = load(tmp_path, "train.steps=1", f"task.teacher={{checkpoint: {tmp_path}/teacher}}")
    save_model(tmp_path / "teacher", build_model(spec), spec)
    recipe.run(given)
    recipe.run(given)
    assert "digits-transfer is trained (1 steps)" in capsys.readouterr().out
    save_model(tmp_path / "teacher", build_model(spec), spec)  # of other random weights
    with pytest.raises(UserError, match="digits-transfer was made from other teacher weights .* choose another name"):
        recipe.run(given)


def test_an_interrupt_that_comes_again_at_once_is_the_same_and_a_later_one_interrupts(monkeypatch):
    now, stopped = [100.0], []
    monkeypatch.setattr(recipe, "time", SimpleNamespace(monotonic=lambda: now[0]))
    with pytest.raises(KeyboardInterrupt), recipe._stop_on_signal() as stop:
        assert not stop(0)
        signal.raise_signal(signal.SIGINT)
        now[0] += 1
        signal.raise_signal(signal.SIGINT)  # from the launcher
        signal.raise_signal(signal.SIGTERM)
        stopped.append(stop(0))
        now[0] += 5
        signal.raise_signal(signal.SIGINT)
        stopped.append("and went on")
    assert stopped == [True]


@pytest.mark.slow
def test_scores_compare_teacher_student_untrained_and_pixels(one_process, capsys):
    score = "score=[{kind: knn, k: [5, 20]}, {kind: few_shot, labels_per_class: [1], draws: 3}]"
    folder = recipe.run(load(one_process, score))
    content = json.loads((folder / "scores.json").read_text())
    table = {(score["model"], score["metric"]): score for score in content["scores"]}
    models = ["teacher (tiny_convnet)", "student (cifar_resnet8)", "untrained (cifar_resnet8)", "raw pixels"]
    assert list(table) == [(model, metric) for model in models for metric in ("kNN 5", "kNN 20", "1/class (3 draws)")]
    assert all(0 < score["value"] <= 1 for score in table.values())
    knn = table["raw pixels", "kNN 5"]
    protocol = {"layer", "precision", "width", "data", "n_train", "n_test", "test_split", "fingerprints"}
    assert set(knn["protocol"]) == protocol | {"probe", "k", "temperature", "metric", "vote"}
    assert knn["protocol"]["k"] == 5 and knn["protocol"]["layer"] == "pixels"
    assert content["fingerprints"].keys() == {"train", "test"} and content["versions"]["torch"]
    capsys.readouterr()

    written = (folder / "scores.json").stat().st_mtime_ns
    recipe.run(load(one_process, score))
    assert (folder / "scores.json").stat().st_mtime_ns == written
    assert "student (cifar_resnet8)" in capsys.readouterr().out

    rescore(load(one_process, score, "data.test=train", "data.train=test"), folder)  # are of other images
    recipe.run(load(one_process, score))
    assert json.loads((folder / "scores.json").read_text())["scores"] == content["scores"]


@pytest.mark.slow
def test_the_average_of_the_weights_is_what_is_exported(tmp_path):
    plain = recipe.run(load(tmp_path, "train.steps=3", "name=plain"))
    average = recipe.run(load(tmp_path, "train.steps=3", "name=average", "train.ema=0.5"))
    assert torch.equal(losses(plain), losses(average))  # averaging watches and does not interfere
    name = "backbone.network.stem.weight"
    assert not torch.equal(weights(plain)[name], weights(average)[name])


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["model.backbone=cifar_resnet9"], "no backbone named 'cifar_resnet9' in timm: did you mean cifar_resnet8"),
        (["data.batch_size=2000"], "batch_size 2000 is more than the 1442 images"),
        (["data.dataset=cifar10", "data.root={folder}/none", "data.download=false"], "{folder}/none"),
        (["task.teacher={{checkpoint: {folder}/none}}"], "holds no trained model: config.json is missing"),
    ],
)
def test_a_mistake_is_one_sentence_and_nothing_is_lost(tmp_path, overrides, words):
    given = load(tmp_path, *(override.format(folder=tmp_path) for override in overrides))
    with pytest.raises(UserError) as caught:
        recipe.run(given)
    assert words.format(folder=tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert runs.folder_of(load(tmp_path))[0] == tmp_path / "digits-transfer"  # what is mended has its name


@pytest.mark.slow
def test_a_batch_that_does_not_divide_names_both_numbers(tmp_path, free_port):
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    command = ["-m", "ssl_transfer", "run", str(TRANSFER), *SMALL, f"train.runs={tmp_path}", "data.batch_size=95"]
    done = subprocess.run(
        [*launcher, "--main_process_port", str(free_port), *command], capture_output=True, text=True, timeout=300
    )
    assert done.returncode != 0
    assert done.stderr.count("ssl-transfer: batch_size 95 does not split over 2 processes") == 1
