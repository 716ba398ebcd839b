"""A whole suite on written miniatures, beside the probes called by hand."""

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from rich.console import Console

from ssl_transfer.cli import main
from ssl_transfer.data import load_images
from ssl_transfer.data.sources.benchmarks import voc_presence
from ssl_transfer.errors import UserError
from ssl_transfer.features.extraction import compute_features
from ssl_transfer.models.checkpoint import ModelSpec, build_model, save_model
from ssl_transfer.probes import knn_accuracy, multi_label_probe, transfer_probe
from ssl_transfer.report.suite import write_suite_page
from ssl_transfer.report.terminal import print_suite
from ssl_transfer.runs.suite_file import read_suite
from ssl_transfer.suite import run as suite_run
from ssl_transfer.suite.asked import Asked, asked_for
from ssl_transfer.suite.run import run_suite
from ssl_transfer.suite.sets import open_set
from tests.data.sources import layouts

COLORS = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)


def write_model(folder: Path, seed: int) -> str:
    torch.manual_seed(seed)
    spec = ModelSpec("cifar_resnet8", "default", 3, 16, *COLORS)
    save_model(folder, build_model(spec), spec)
    return str(folder)


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """Two models, and the sets dtd (with a predefined validation split), voc2007 and a folder of a person's own."""
    root = tmp_path_factory.mktemp("suite")
    write_model(root / "student", 1)
    write_model(root / "teacher", 2)
    layouts.dtd(root / "data")
    layouts.voc2007(root / "data")
    for number, name in enumerate(("cats", "dogs")):
        for picture in range(10):
            layouts.image(root / "own" / name / f"{picture}.png", 100 + 10 * number + picture)
    return root


@pytest.fixture(scope="module")
def asked(place) -> Asked:
    return Asked(
        models=(str(place / "student"),),
        on=("digits,dtd", "voc2007", str(place / "own"), "food101"),
        teacher=str(place / "teacher"),
        root=place / "data",
        out=place / "out",
        images=200,
    )


@pytest.fixture(scope="module")
def results(asked):
    return run_suite(asked)


def scores_of(results, dataset, metric):
    return {
        score.role: score for score in results.scores if score.protocol["set"] == dataset and score.metric == metric
    }


def model_of(place, name):
    from ssl_transfer.models import load_model

    return load_model(place / name)[0]


def test_every_model_is_scored_on_every_set_beside_its_baselines(results, place):
    roles = ["teacher", "student", "untrained"]
    assert list(scores_of(results, "digits", "linear")) == [*roles, "raw pixels"]
    for dataset in ("dtd", str(place / "own")):
        assert list(scores_of(results, dataset, "linear")) == roles
        assert len(scores_of(results, dataset, "kNN 20") | scores_of(results, dataset, "kNN 12")) in (0, 3)
    assert list(scores_of(results, "voc2007", "linear")) == roles
    assert [name for name in results.missing] == ["food101"] and "--download" in results.missing["food101"]
    assert not results.failed


def test_the_numbers_are_those_of_the_probes(results, place):
    """Of gray images repeated to three colors, and of a set whose validation split is predefined."""
    model = model_of(place, "student")
    opened = open_set("digits", place, limit=200).seen_by(3, 16, 0, torch.device("cpu"))
    x = [compute_features(model, images) for images in (opened.train, opened.test)]
    y = [images.labels for images in (opened.train, opened.test)]
    assert len(y[0]) == len(y[1]) == 200 and y[0].bincount().max() - y[0].bincount().min() <= 1
    gray = load_images("digits", ".", split="train")
    assert torch.equal(opened.train.pixels[:, 2], opened.train.pixels[:, 0]) and gray.pixels.shape[1] == 1
    found = scores_of(results, "digits", "linear")["student"]
    assert found.value == pytest.approx(transfer_probe(x[0], y[0], x[1], y[1]).score)
    assert found.protocol["n_held_out"] == 40 and found.protocol["chosen_on"] == "a fifth of each class of train"
    expected = knn_accuracy(x[0], y[0], x[1], y[1], k=20)[20, 0.1]
    assert scores_of(results, "digits", "kNN 20")["student"].value == pytest.approx(expected)

    parts = [load_images("dtd", place / "data", split=split, image_size=16) for split in ("train", "val", "test")]
    x = [compute_features(model, images) for images in parts]
    train_x, train_y = torch.cat(x[:2]), torch.cat([images.labels for images in parts[:2]])
    expected = transfer_probe(train_x, train_y, x[2], parts[2].labels, held_out=torch.arange(12) >= 6)
    found = scores_of(results, "dtd", "linear")["student"]
    assert found.value == pytest.approx(expected.score) and found.protocol["n_held_out"] == 6
    assert found.protocol["held_out"] == pytest.approx(expected.held_out)
    assert found.protocol["chosen_on"] == "the predefined validation split"


def test_voc_is_scored_by_its_eleven_points(results, place):
    model = model_of(place, "student")
    root = place / "data"
    parts = [load_images("voc2007", root, split=split, image_size=16) for split in ("train", "val", "test")]
    presence = [voc_presence(root, split) for split in ("train", "val", "test")]
    x = [compute_features(model, images) for images in parts]
    held_out = torch.arange(16) >= 8
    arguments = torch.cat(x[:2]), torch.cat(presence[:2]), x[2], presence[2]
    expected = multi_label_probe(*arguments, held_out=held_out, eleven_points=True)
    found = scores_of(results, "voc2007", "linear")["student"]
    assert found.value == pytest.approx(expected.score) and found.protocol["measure"] == "11-point mAP"
    assert not any(score.protocol["probe"] == "knn" for score in results.scores if score.protocol["set"] == "voc2007")


def test_what_is_kept_of_the_teacher_and_the_mean_follow_from_the_scores(results, place):
    rows = results.rows("linear")
    assert [row.dataset for row in rows] == ["digits", "dtd", "voc2007", str(place / "own")]
    own = [scores_of(results, row.dataset, "linear") for row in rows]
    assert [row.kept for row in rows] == [[found["student"].value / found["teacher"].value] for found in own]
    scores, kept = results.mean("linear")
    for column, role in enumerate(("teacher", "student", "untrained")):
        assert scores[column] == pytest.approx(sum(found[role].value for found in own) / 4)
    assert scores[3] is None  # of raw pixels, which are not of every set
    assert kept == [pytest.approx(sum(row.kept[0] for row in rows) / 4)]


def test_the_file_is_the_result_with_every_protocol(results, asked):
    read = read_suite(asked.folder)
    assert [score.value for score in read.scores] == [score.value for score in results.scores]
    assert (read.missing, read.failed, read.models) == (results.missing, results.failed, results.models)
    content = json.loads((asked.folder / "suite.json").read_text())
    assert content["retention"]["linear"]["digits"].keys() == {"student (student)"}
    needed = {"set", "measure", "splits", "layer", "weights", "fingerprints", "n_train", "n_test"}
    assert all(needed - {"weights"} <= score["protocol"].keys() for score in content["scores"])
    assert content["versions"].keys() >= {"ssl-transfer", "torch"} and content["images"] == 200


def test_a_stopped_suite_goes_on_where_it_was(results, asked, monkeypatch):
    def computed(subject, *arguments):
        raise AssertionError(f"{subject.name} was measured again")

    monkeypatch.setattr(suite_run, "features", computed)
    again = run_suite(asked)
    assert [score.value for score in again.scores] == [score.value for score in results.scores]
    kept = sorted((asked.folder / "parts").iterdir())
    kept[0].write_text(kept[0].read_text()[:50])  # as a crash might leave it
    with pytest.raises(AssertionError, match="was measured again"):
        run_suite(asked)


def test_an_image_that_cannot_be_decoded_costs_its_set_alone(asked, place, tmp_path):
    broken = tmp_path / "broken"
    for name in ("cats", "dogs"):
        for picture in range(4):
            layouts.image(broken / name / f"{picture}.png", picture)
    (broken / "cats" / "2.png").write_bytes(b"no picture")
    layouts.image(tmp_path / "flat" / "1.png")
    options = {"models": asked.models, "root": asked.root, "out": tmp_path / "out", "baselines": False}
    found = run_suite(Asked(on=(f"{broken},{tmp_path / 'flat'},digits",), images=100, **options))
    assert [row.dataset for row in found.rows("linear")] == ["digits"]
    (flat, no_labels), (what, why) = found.failed.items()
    assert what.startswith(str(broken)) and "2.png" in why
    assert flat == str(tmp_path / "flat") and "has no labels" in no_labels
    assert found.compared == [] and [role for _, role in found.models] == ["other"]


def test_the_attentive_probe_is_of_networks_and_of_one_class_an_image(asked, place, tmp_path):
    options = {"models": asked.models, "root": asked.root, "out": tmp_path}
    found = run_suite(Asked(on=("digits", "voc2007"), probes=("attentive",), images=40, **options))
    assert found.probes == ["attentive 10 ep"]
    assert [score.role for score in found.scores] == ["other", "untrained"]
    assert {score.protocol["set"] for score in found.scores} == {"digits"}
    assert found.scores[0].protocol["tokens"] > 1 and found.scores[0].protocol["n_held_out"] == 10


def test_names_are_suites_sets_and_folders(place):
    assert asked_for(["small,dtd", "digits"]) == ["digits", "cifar10", "cifar100", "stl10", "svhn", "dtd"]
    with pytest.raises(UserError, match="no data set or folder 'cifar11'.*did you mean 'cifar1"):
        asked_for(["cifar11"])
    with pytest.raises(UserError, match="name what to score on"):
        asked_for([","])


def test_a_suite_of_nothing_that_is_there_is_a_mistake(asked, tmp_path):
    with pytest.raises(UserError, match="none of these data sets is there: .*food101"):
        run_suite(Asked(models=asked.models, on=("food101",), root=tmp_path, out=tmp_path / "out"))


def test_a_folder_with_splits_is_taken_as_it_is(tmp_path):
    for split, classes in {"train": "abc", "val": "bc", "test": "ac"}.items():
        for place, name in enumerate(classes * 2):
            layouts.image(tmp_path / split / name / f"{place}.png", place)
    opened = open_set(str(tmp_path), tmp_path)
    assert opened.train.labels.tolist() == [0, 0, 1, 1, 2, 2, 1, 1, 2, 2]
    assert opened.held_out.tolist() == [False] * 6 + [True] * 4
    assert opened.test.labels.tolist() == [0, 0, 2, 2]


def test_a_folder_without_classes_is_refused(tmp_path):
    layouts.image(tmp_path / "picture.png")
    with pytest.raises(ValueError, match="has no labels: put the images of each class"):
        open_set(str(tmp_path), tmp_path)


def test_the_command_prints_tables_and_says_where_the_numbers_are(results, asked, capsys):
    words = ["suite", *asked.models, "--on", "digits", "--teacher", asked.teacher, "--root", str(asked.root)]
    main([*words, "--out", str(asked.out), "--images", "200", "--probes", "linear"])
    shown = capsys.readouterr().out
    assert "linear" in shown and "top-1" in shown and "kNN" not in shown
    assert f"{100 * scores_of(results, 'digits', 'linear')['student'].value:.1f}" in shown
    assert str(asked.out / "suite.json") in shown


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--probes", "lineal"], "there is no probe 'lineal'; did you mean 'linear'"),
        (["--teacher", "nowhere"], "there is no folder or file nowhere"),
        (["--teacher", "{file: x.pth}"], "file needs backbone"),
    ],
)
def test_a_mistake_is_one_sentence(asked, capsys, words, says):
    with pytest.raises(SystemExit) as ended:
        main(["suite", *asked.models, "--on", "digits", *words])
    assert ended.value.code == 2 and says in capsys.readouterr().err


def test_a_model_in_braces_has_the_keys_of_a_teacher(place, asked):
    from ssl_transfer.suite.models import open_subjects

    subjects = open_subjects(
        [f"{{checkpoint: {place / 'student'}}}"], f"{{checkpoint: {place / 'teacher'}}}", baselines=False
    )
    assert [subject.name for subject in subjects] == ["teacher (teacher)", "student (student)"]


def test_several_students_have_a_column_each_and_the_same_one_network_untrained(place):
    from ssl_transfer.suite.models import open_subjects

    words = [str(place / "student"), str(place / "teacher"), str(place / "student")]
    names = [subject.name for subject in open_subjects(words, None, baselines=True)]
    assert names == ["student", "teacher", "untrained (cifar_resnet8)", "raw pixels"]


def test_the_page_has_the_tables_a_chart_and_what_is_missing(results, asked):
    path = write_suite_page(asked.folder, results)
    page = path.read_text()
    student = scores_of(results, "dtd", "linear")["student"]
    assert f"<td>{student.percent}</td>" in page and "student (student)" in page
    assert "<svg" in page and "food101" in page and "the predefined validation split" in page


def test_a_narrow_terminal_shows_every_data_set(results):
    console = Console(width=80, record=True, file=io.StringIO())
    print_suite(results, console)
    shown = console.export_text()
    assert all(row.dataset[-10:] in shown for row in results.rows("linear"))


@pytest.mark.slow
def test_two_processes_find_the_numbers_of_one(results, asked, tmp_path):
    command = [sys.executable, "-m", "ssl_transfer", "suite", *asked.models, "--on", "digits,dtd", "--processes", "2"]
    command += [
        "--teacher",
        asked.teacher,
        "--root",
        str(asked.root),
        "--out",
        str(tmp_path / "out"),
        "--images",
        "200",
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr
    found = {
        (score.protocol["set"], score.model, score.metric): score.value for score in read_suite(tmp_path / "out").scores
    }
    expected = {(score.protocol["set"], score.model, score.metric): score.value for score in results.scores}
    assert len(found) == 2 * 4 + 2 * 3 and all(
        value == pytest.approx(expected[key], abs=0.01) for key, value in found.items()
    )
