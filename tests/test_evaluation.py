"""The programs in eval/: the numbers of the recipe and of the probes, from any kind of subject."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from ssl_transfer import config, recipe, runs
from ssl_transfer.rescore import rescore

ROOT = Path(__file__).parents[1]
# The programs that find what each of a recipe's kinds of scores finds, with the same settings.
PROGRAMS = {
    "knn --k 5 20": {"kind": "knn", "k": [5, 20]},
    "knn --k 5 --majority": {"kind": "knn", "k": [5], "weighted": False},
    "linear_probe": {"kind": "linear_probe"},
    "linear_probe --protocol sgd --epochs 3": {"kind": "linear_probe", "protocol": "sgd", "epochs": 3},
    "linear_probe --protocol augmented --epochs 1 --augment digits": {
        **{"kind": "linear_probe", "protocol": "augmented", "epochs": 1, "augment": "digits"}
    },
    "few_shot --labels-per-class 1 --fractions 0.1": {"kind": "few_shot", "labels_per_class": [1], "fractions": [0.1]},
    "finetune --epochs 1 --augment digits": {"kind": "finetune", "epochs": 1, "augment": "digits"},
    "retrieval --k 1": {"kind": "retrieval", "k": [1]},
    "retrieval --k 1 --metric euclidean --layer output": {
        **{"kind": "retrieval", "k": [1], "metric": "euclidean", "layer": "output"}
    },
    "clustering": {"kind": "clustering"},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run of two steps in bfloat16, scored in every way that a program can score it."""
    folder = tmp_path_factory.mktemp("runs")
    score = json.dumps([{"kind": "agreement"}, *PROGRAMS.values()])
    overrides = [f"score={score}", f"train.runs={folder}", *(f"train.{s}" for s in ("steps=2", "cpu_threads=1"))]
    overrides += ["train.precision=bf16", "task.teacher.recipe.train.steps=2"]
    return recipe.run(config.load(ROOT / "recipes" / "digits" / "transfer.yaml", overrides))


@pytest.fixture(scope="module")
def scored(run) -> dict[str, dict]:
    """The student's scores by column."""
    scores = json.loads((run / "scores.json").read_text())["scores"]
    return {score["metric"]: score for score in scores if score["model"].startswith("student")}


def test_features_in_bfloat16_where_they_are_asked_for(run, scored, program, capsys, tmp_path):
    (found,) = program("knn --k 20 --precision bfloat16", run, "--cache", tmp_path / "cache")
    own = scored["kNN 20"]
    assert found["protocol"] == own["protocol"] | {"precision": "bfloat16"}
    assert found["value"] == pytest.approx(own["value"], abs=0.02)
    with pytest.raises(SystemExit):
        program("knn --k 5 --precision bfloat16", "--features", feature_file(tmp_path / "x.npz"))
    assert "holds features as they are: leave it out" in capsys.readouterr().err


def feature_file(path: Path, **changes: object) -> Path:
    generator = np.random.default_rng(0)
    centers = generator.normal(size=(4, 12))
    y = generator.integers(0, 4, 600)
    x = (centers[y] + 1.5 * generator.normal(size=(600, 12))).astype(np.float32)
    np.savez(path, **{"train_x": x[:400], "train_y": y[:400], "test_x": x[400:], "test_y": y[400:]} | changes)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("command", PROGRAMS)
def test_a_program_finds_the_numbers_of_the_recipe(run, scored, program, command):
    found = program(command, run)
    assert found
    for score in found:
        expected = scored[score["metric"]]
        assert (score["value"], score["sd"], score["n"]) == (expected["value"], expected["sd"], expected["n"])
        assert score["protocol"] == expected["protocol"]
        assert score["protocol"]["precision"] == "float32"


@pytest.mark.slow
def test_agreement_of_two_runs_is_that_of_the_recipe(run, scored, program):
    found = program("agreement", run, "--teacher", run.parent / "digits-simclr")
    assert {score["metric"] for score in found} == {"overlap 10", "CKA", "Spearman"}
    assert all(score["value"] == scored[score["metric"]]["value"] for score in found)


@pytest.mark.slow
def test_two_processes_find_the_numbers_of_one(run, scored, tmp_path, free_port):
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    for command in ("knn --k 5 20", "linear_probe --protocol augmented --epochs 1 --augment digits"):
        name, *words = command.split()
        arguments = [ROOT / "eval" / f"{name}.py", run, *words, "--cache", tmp_path, "--json", tmp_path / "two.json"]
        command = [*launch, "--main_process_port", free_port, *arguments]
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=300, cwd=ROOT)
        assert done.returncode == 0, done.stderr
        for score in json.loads((tmp_path / "two.json").read_text())["scores"]:
            assert score["value"] == scored[score["metric"]]["value"]
        assert done.stdout.count("%") == len(json.loads((tmp_path / "two.json").read_text())["scores"])  # one speaks


@pytest.mark.slow
def test_scores_carry_hashes_and_the_file_versions_and_a_date(run, scored):
    protocol = scored["kNN 5"]["protocol"]
    assert len(protocol["weights"]) == 16 and set(protocol["fingerprints"]) == {"train", "test"}
    assert "mean (0.3052,)" in protocol["preprocessing"]
    content = json.loads((run / "scores.json").read_text())
    assert content["versions"]["scikit-learn"] and content["date"] and content["retention"]["kNN 5"] > 0


def test_linear_probe_on_saved_features_agrees_with_sklearn(tmp_path, program):
    path = feature_file(tmp_path / "x.npz")
    (found,) = program("linear_probe", "--features", path)
    strength = found["protocol"]["strength"]
    with np.load(path) as x:
        scaler = StandardScaler().fit(x["train_x"])
        sklearn = LogisticRegression(C=1 / (400 * strength), tol=1e-8, max_iter=5000)
        sklearn.fit(scaler.transform(x["train_x"]), x["train_y"])
        expected = sklearn.score(scaler.transform(x["test_x"]), x["test_y"])
    assert found["value"] == pytest.approx(expected, abs=0.0051)  # one of 200 images


@pytest.mark.slow
def test_a_folder_with_a_model_and_no_recipe_is_scored_on_the_data_named_and_left_as_it_is(run, tmp_path, program):
    model = tmp_path / "model"
    model.mkdir()
    for name in ("model.safetensors", "config.json"):
        (model / name).write_bytes((run / name).read_bytes())
    found = program("retrieval --k 1", model, "--dataset", "digits")
    assert found == [score | {"model": str(model)} for score in program("retrieval --k 1", run)]
    assert sorted(path.name for path in model.iterdir()) == ["config.json", "model.safetensors"]


@pytest.mark.slow
def test_a_run_on_a_part_of_the_images_is_scored_by_that_part(run, tmp_path, program):
    folder = shutil.copytree(run, tmp_path / "part")
    asked = config.load(run / "recipe.yaml", ["data.images=900", 'score=[{"kind": "knn", "k": [5]}]'])
    (folder / "recipe.yaml").write_text(config.dump(asked))
    runs.write_info(folder, runs.RunInfo(config.identity_hash(asked), finished=True))
    rescore(asked, folder)
    scores = json.loads((folder / "scores.json").read_text())["scores"]
    (expected,) = [score for score in scores if score["model"].startswith("student")]
    (found,) = program("knn --k 5", folder)
    assert found["protocol"]["n_train"] == 900
    assert found == expected | {"model": str(folder), "role": "other"}


@pytest.mark.slow
def test_scores_of_other_kinds_stay_beside_new_ones_and_those_of_other_images_go_by_name(tmp_path, capsys):
    asked, other = (f"score=[{{kind: knn, k: {k}, weighted: false}}]" for k in ([5, 9], [7]))
    small = [f"train.runs={tmp_path}", "train.steps=1", "data.batch_size=32", "data.images=64"]
    folder = recipe.run(config.load(ROOT / "recipes" / "digits" / "simclr.yaml", [*small, asked]))

    def columns() -> dict[str, list[dict]]:
        scores = runs.read_scores(folder).scores
        return {score.metric: [asdict(one) for one in scores if one.metric == score.metric] for score in scores}

    before = columns()
    assert len(before) == 2
    rescore(config.load(folder / "recipe.yaml", [other]), folder, keep=True)
    (new,) = columns().keys() - before.keys()
    assert {metric: scores for metric, scores in columns().items() if metric != new} == before
    assert "no longer" not in capsys.readouterr().out

    rescore(config.load(folder / "recipe.yaml", [other, "data.images=60"]), folder, keep=True)
    assert list(columns()) == [new]
    (said,) = [line for line in capsys.readouterr().out.splitlines() if "no longer in scores.json" in line]
    assert said == f"these scores of other images are no longer in scores.json: {', '.join(before)}"


MISTAKES = [
    ("knn", "name one of a run or exported folder, --zoo NAME, .* or --features FILE; given: none"),
    ("knn --timm resnet18 --features x.npz", "given: timm, features"),
    ("knn --zoo cifar10-simcl --dataset digits", "no such model comes with the package; did you mean 'cifar10-simclr'"),
    ("knn --timm resnet19 --dataset digits", "no network named 'resnet19' in timm: did you mean resnet1"),
    ("knn --timm resnet18", "such as --dataset cifar10 .with --root and, for files, --image-size"),
    ("knn nowhere", "there is no folder nowhere: name a run or an exported folder"),
    ("knn nowhere --dataset digits", "nowhere holds no trained model"),
    ("knn --file model.pth --dataset digits", "--file needs --backbone"),
    ("knn --features nothing.npz", "nothing.npz"),
    ("knn --features features.txt", "features.txt is no npz file"),
    ("knn --features good.npz --k 500", "k is 500 but there are 400 images to search"),
    ("retrieval --features good.npz --k 200", "k is 200 but there are 199 images to search"),
    ("few_shot --features good.npz --labels-per-class 300", "the smallest class has"),
    (
        "linear_probe --features good.npz --protocol augmented",
        "is a table of features; this protocol needs the network",
    ),
    ("linear_probe --features absent.npz", "test_y has 1 classes that are absent from train_y"),
    ("linear_probe --features unlabeled.npz", "train_y has 400 of 400 labels missing"),
    ("clustering --features broken.npz", "test_x has 2 of 200 rows that are not finite"),
    ("agreement --features good.npz --teacher short.npz", "student has 200 rows but teacher has 100"),
    ("knn --features narrow.npz", "train_x has 12 dimensions but test_x has 5"),
]


@pytest.mark.parametrize(("command", "words"), MISTAKES)
def test_a_mistake_is_one_sentence(command, words, program, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    x = np.random.default_rng(0).normal(size=(200, 12))
    broken = x.copy()
    broken[[3, 7], 2] = np.inf
    feature_file(tmp_path / "good.npz")
    feature_file(tmp_path / "absent.npz", test_y=np.full(200, 9))
    feature_file(tmp_path / "unlabeled.npz", train_y=np.full(400, -1))
    feature_file(tmp_path / "broken.npz", test_x=broken)
    feature_file(tmp_path / "narrow.npz", test_x=x[:, :5])
    feature_file(tmp_path / "short.npz", test_x=x[:100], test_y=np.arange(100) % 4)
    with pytest.raises(SystemExit) as stop:
        program(command)
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert re.search(words, said), said
