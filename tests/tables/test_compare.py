"""Tables of many runs: the statistics, what is refused, and published numbers where the setting is theirs."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ssl_transfer import config, runs
from ssl_transfer.catalog import published
from ssl_transfer.cli import main
from ssl_transfer.errors import UserError
from ssl_transfer.tables import writing
from ssl_transfer.tables.compare import compare, finished
from ssl_transfer.tables.methods import Settings, labels
from ssl_transfer.tables.protocols import PROTOCOL
from tests.fake_runs import RECIPES, fake_run

KINDS = ("relaxed_contrastive", "rkd", "pkt")
TEACHER, STUDENT, UNTRAINED = "teacher (tiny_convnet)", "student (cifar_resnet8)", "untrained (cifar_resnet8)"


@pytest.fixture
def scores() -> np.ndarray:
    """Of three methods by four seeds: a method is better, a seed is better, and some noise."""
    noise = np.random.default_rng(0).normal(scale=0.002, size=(3, 4))
    return 0.9 + np.array([[0.02], [0.01], [0.0]]) + np.array([0.0, 0.03, -0.01, 0.02]) + noise


@pytest.fixture
def folders(tmp_path, scores) -> list[Path]:
    made = []
    for kind, row in zip(KINDS, scores, strict=True):
        for seed, value in enumerate(row):
            rows = {
                TEACHER: {"kNN 20": 0.97},
                STUDENT: {"kNN 20": float(value)},
                UNTRAINED: {"kNN 20": 0.5 + seed / 100},
                "raw pixels": {"kNN 20": 0.8},
            }
            made.append(fake_run(tmp_path / f"{kind}-{seed}", rows, f"task.kind={kind}", f"seed={seed}"))
    return made


def row(frame: pd.DataFrame, label: str) -> pd.Series:
    (found,) = (series for _, series in frame[frame["label"] == label].iterrows())
    return found


def test_mean_and_spread_of_each_method_are_those_of_its_seeds(folders, scores):
    summary = compare(folders).summary
    for kind, values in zip(KINDS, scores, strict=True):
        found = row(summary, kind)
        np.testing.assert_allclose([found["mean"], found["sd"]], [values.mean(), values.std(ddof=1)], rtol=1e-12)
        assert found["n"] == 4


def test_differences_pair_runs_of_one_seed(folders, scores):
    differences = compare(folders, baseline="rkd").differences
    assert list(differences["label"]) == ["relaxed_contrastive", "pkt"]
    for label, place in (("relaxed_contrastive", 0), ("pkt", 2)):
        pairs = scores[place] - scores[1]
        found = row(differences, label)
        expected = [pairs.mean(), pairs.std(ddof=1) / np.sqrt(4)]
        np.testing.assert_allclose([found["mean"], found["se"]], expected, rtol=1e-12)
        assert found["n"] == 4
        # Seeds move both sides: unpaired, the difference would drown in their spread.
        assert found["se"] < 0.5 * np.sqrt(scores[place].var(ddof=1) / 4 + scores[1].var(ddof=1) / 4)


def test_seeds_that_only_one_method_has_count_for_it_and_not_for_the_difference(folders, scores):
    some = [folder for folder in folders if folder.name not in ("pkt-0", "pkt-3")]
    comparison = compare(some)
    assert row(comparison.summary, "pkt")["n"] == 2 and row(comparison.summary, "rkd")["n"] == 4
    found = row(comparison.differences, "pkt")
    assert found["n"] == 2
    np.testing.assert_allclose(found["mean"], (scores[2] - scores[0])[1:3].mean(), rtol=1e-12)


def test_a_student_without_a_teacher_pairs_with_one_of_the_same_seed(tmp_path):
    alone, taught = (
        [
            fake_run(tmp_path / f"{name}{seed}", {model: {"top-1": value + seed / 10}}, f"seed={seed}", *overrides)
            for seed in (0, 1, 2)
        ]
        for name, model, value, overrides in (
            ("alone", "trained (cifar_resnet8)", 0.5, ["task={kind: classify}"]),
            ("taught", STUDENT, 0.6, ["task.kind=rkd", "task.labels=true"]),
        )
    )
    found = row(compare([*alone, *taught]).differences, "rkd")
    assert found["n"] == 3
    np.testing.assert_allclose([found["mean"], found["se"]], [0.1, 0], atol=1e-12)


def test_a_shared_teacher_is_one_and_an_untrained_network_one_a_seed(folders):
    summary = compare(folders).summary
    assert (row(summary, TEACHER)["n"], row(summary, UNTRAINED)["n"], row(summary, "raw pixels")["n"]) == (1, 4, 1)
    assert np.isnan(row(summary, TEACHER)["sd"])
    np.testing.assert_allclose(row(summary, UNTRAINED)["mean"], 0.515)
    assert list(summary["label"]) == [TEACHER, *KINDS, UNTRAINED, "raw pixels"]


def test_teachers_of_other_seeds_are_samples_and_teachers_of_other_settings_are_rows(tmp_path):
    def taught(name, value, *overrides):
        return fake_run(tmp_path / name, {TEACHER: {"kNN 20": value}, STUDENT: {"kNN 20": 0.9}}, *overrides)

    seeds = [taught(f"s{seed}", 0.9 + seed / 10, f"task.teacher.recipe.seed={seed}") for seed in (0, 1)]
    found = row(compare(seeds).summary, TEACHER)
    assert found["n"] == 2
    np.testing.assert_allclose(found["mean"], 0.95)

    projected = taught("projected", 0.9, "task.teacher.output=projection")
    assert row(compare([seeds[0], projected]).summary, TEACHER)["n"] == 1

    longer = taught("longer", 0.99, "task.teacher.recipe.train.epochs=200")
    summary = compare([seeds[0], longer]).summary
    method = "relaxed_contrastive teacher.recipe.train.epochs"
    assert row(summary, f"{TEACHER} of {method}=100")["mean"] == 0.9
    assert row(summary, f"{TEACHER} of {method}=200")["mean"] == 0.99


def test_each_of_several_teachers_is_a_row_known_by_its_own_settings(tmp_path):
    both = "task.teacher=[{recipe: simclr.yaml}, {recipe: moco.yaml}]"
    models = {"teacher 1 (tiny_convnet)": 0.8, "teacher 2 (tiny_convnet)": 0.7}

    def taught(name, *overrides):
        rows = {model: {"kNN 20": value} for model, value in models.items()} | {STUDENT: {"kNN 20": 0.9}}
        return fake_run(tmp_path / name, rows, both, *overrides)

    plain = [taught("a"), taught("b", "seed=1")]
    summary = compare(plain).summary
    assert [(row(summary, model)["mean"], row(summary, model)["n"]) for model in models] == [(0.8, 1), (0.7, 1)]
    summary = compare([plain[0], taught("c", "task.teacher.1.recipe.seed=1", "task.teacher.1.weight=2")]).summary
    assert [row(summary, model)["n"] for model in models] == [1, 2]
    longer = compare([plain[0], taught("d", "task.teacher.1.recipe.train.epochs=7")]).summary
    method = "relaxed_contrastive teacher.1.recipe.train.epochs"
    labels = ["teacher 1 (tiny_convnet)"] + [f"teacher 2 (tiny_convnet) of {method}={epochs}" for epochs in (100, 7)]
    assert list(longer["label"]) == [*labels, f"{method}=100", f"{method}=7"]


def test_methods_are_called_by_as_many_settings_as_it_takes():
    def of(*overrides):
        return Settings.of(config.load(RECIPES / "digits" / "transfer.yaml", overrides))

    assert labels([of(), of("seed=1"), of("task.kind=rkd")]) == ["relaxed_contrastive", "relaxed_contrastive", "rkd"]
    swept = [of("task.delta=0.5"), of("task.delta=2", "seed=3"), of("task.kind=rkd")]
    assert labels(swept) == ["relaxed_contrastive delta=0.5", "relaxed_contrastive delta=2.0", "rkd"]
    assert labels([of(), of("data.augment.crop_scale=[0.1, 1.0]")])[1].endswith("crop_scale=[0.1, 1.0]")
    both = "task.teacher=[{recipe: simclr.yaml}, {recipe: moco.yaml}]"
    assert labels([of(), of(both), of(both, "task.teacher.0.recipe.seed=1")]) == [
        "relaxed_contrastive",
        *["relaxed_contrastive teachers=2"] * 2,
    ]


@pytest.mark.parametrize(
    ("key", "other"),
    [("layer", "embedding"), ("k", 200), ("temperature", 0.07), ("n_test", 9), ("precision", "bfloat16")],
)
def test_scores_that_were_not_taken_alike_are_refused_in_one_sentence(tmp_path, key, other):
    alike = {"layer": "features", "k": 20, "temperature": 0.1, "n_test": 10, "precision": "float32"}
    rows = {STUDENT: {"kNN 20": 0.9}}
    first = fake_run(tmp_path / "a", rows, **alike)
    second = fake_run(tmp_path / "b", rows, "seed=1", **alike | {key: other})
    with pytest.raises(UserError) as caught:
        compare([first, second])
    words = str(caught.value)
    assert f"kNN 20 of the trained model was not taken alike: {key} is {alike[key]!r} in {first}" in words
    assert f"{other!r} in {second}" in words and "\n" not in words


def test_other_images_of_one_name_are_refused(tmp_path):
    rows = {STUDENT: {"kNN 20": 0.9}}
    first = fake_run(tmp_path / "a", rows, about={"fingerprints": {"test": "1"}})
    second = fake_run(tmp_path / "b", rows, "seed=1", about={"fingerprints": {"test": "2"}})
    with pytest.raises(UserError, match="fingerprints is"):
        compare([first, second])


def test_what_differs_between_runs_by_its_nature_is_no_protocol(tmp_path):
    rows = {STUDENT: {"linear": 0.9}}
    first = fake_run(tmp_path / "a", rows, about={"date": "1"}, weights="1", seed=0, strength=0.1)
    second = fake_run(tmp_path / "b", rows, "seed=1", about={"date": "2"}, weights="2", seed=1, strength=0.2)
    assert row(compare([first, second]).summary, "relaxed_contrastive")["n"] == 2


@pytest.mark.slow
def test_every_key_of_every_protocol_is_known_to_be_one_or_not_to_be_one():
    from tests.scores.subjects import EVERY_KIND, kinds, scores_of

    noted = {"seed", "weights", "width", "preprocessing", "teacher", "epoch", "data"}  # data: as dataset
    found = {"strength", "penalty", "rate", "held_out", "held_out_accuracy", "at_grid_edge", "converged"}
    taken = scores_of("student (small)", 1, kinds(*EVERY_KIND))
    assert len({score.protocol["probe"] for score in taken}) >= 7
    for score in taken:
        unknown = set(score.protocol) - set(PROTOCOL) - noted - found
        assert not unknown, f"{score.metric}: add {unknown} to PROTOCOL, or to what this test knows to be none of it"


def test_what_cannot_be_compared_says_why(tmp_path, folders):
    with pytest.raises(UserError, match="is no run folder: it has no recipe.yaml"):
        compare([tmp_path])
    with pytest.raises(UserError, match="are the same run; name one of them"):
        compare([folders[0], folders[1], folders[0]])
    with pytest.raises(UserError, match="there is no method 'rdk' to compare with; did you mean 'rkd'"):
        compare(folders, baseline="rdk")
    (folders[0] / "scores.json").unlink()
    with pytest.raises(UserError, match=r"has no scores; take them with ssl-transfer score .*relaxed_contrastive-0"):
        compare(folders)
    info = runs.read_info(folders[0])
    assert info is not None
    runs.write_info(folders[0], replace(info, finished=False))
    with pytest.raises(UserError, match="is not finished; run its recipe again"):
        compare(folders)


def test_the_command_prints_the_table_and_writes_it_with_a_chart(folders, scores, tmp_path, capsys):
    out = tmp_path / "table"
    main(["compare", *map(str, folders), "--out", str(out)])
    shown = capsys.readouterr().out
    mean, sd = 100 * scores[0].mean(), 100 * scores[0].std(ddof=1)
    assert f"{mean:.2f} ± {sd:.2f} (4)" in shown
    assert (out / "table.md").read_text() in shown
    assert {path.name for path in out.iterdir()} == {
        *("table.md", "table.csv", "differences.csv", "runs.csv", "chart.png")
    }
    table = pd.read_csv(out / "table.csv").set_index("label")
    np.testing.assert_allclose(table.loc["rkd", "mean"], scores[1].mean())
    assert len(pd.read_csv(out / "runs.csv")) == 4 * len(folders)
    assert (out / "chart.png").read_bytes().startswith(b"\x89PNG")


def test_published_numbers_stand_beside_ours_only_in_their_setting(tmp_path):
    overrides = ["data.dataset=cifar100", "model.backbone=cifar_resnet8x4", "task.kind=rkd", "task.labels=true"]
    overrides += ["task.teacher.recipe.model.backbone=cifar_resnet32x4", "task.teacher.recipe.data.dataset=cifar100"]
    overrides += ["task.teacher.recipe.task={kind: classify}"]
    rows = {"teacher (cifar_resnet32x4)": {"top-1": 0.79, "top-5": 0.94}, "student (cifar_resnet8x4)": {"top-1": 0.7}}
    comparison = compare([fake_run(tmp_path / "a", rows, *overrides)])
    given = comparison.summary.set_index(["label", "metric"])["published"]
    assert given["teacher (cifar_resnet32x4)", "top-1"] == pytest.approx(0.7942)
    assert given["rkd", "top-1"] == pytest.approx(0.7190)
    assert given.isna().sum() == 1  # top-5
    text = writing.markdown(comparison)
    assert "published" in text and "71.9" in text and "RepDistiller" in text

    others = ("data.dataset=cifar10", "task.teacher.recipe.task={kind: simclr}", "data.held_out=5000")
    for name, other in enumerate((*others, "task.teacher.recipe.data.images=15000")):
        elsewhere = compare([fake_run(tmp_path / str(name), rows, *overrides, other)])
        assert elsewhere.summary["published"].isna().all()


def test_published_numbers_are_those_of_their_tables():
    """A cell of each corner of each table, read off the pages."""

    def percent(*key):
        return round(100 * published.find(*key).value, 2)

    recall, resnet, inception = (
        "R@1 best-on-test",
        *((name, "metric proxy_anchor") for name in ("resnet50-512", "bn_inception-512")),
    )
    assert percent("cub", resnet, "resnet18-128", "relaxed_contrastive", recall) == 66.6
    assert percent("sop", inception, "bn_inception-64", "fitnet", recall) == 76.6
    assert percent("cars", None, *resnet, recall) == 87.7

    def classifier(name):
        return name, "classify"

    assert percent("cifar100", classifier("cifar_wrn40_2"), "cifar_wrn16_2", "soft_targets", "top-1") == 74.92
    assert percent("cifar100", classifier("cifar_vgg13"), "cifar_vgg8", "crd", "top-1") == 73.94
    assert percent("cifar100", classifier("cifar_wrn40_2"), "cifar_shufflenet_v1", "crd", "top-1") == 76.05
    assert percent("cifar100", classifier("cifar_resnet50"), "cifar_vgg8", "similarity_preserving", "top-1") == 73.34
    assert percent("cifar100", None, *classifier("cifar_mobilenetv2_half"), "top-1") == 64.60
    ours = ("cifar100", classifier("cifar_resnet32x4"), "cifar_resnet8x4", "relaxed_contrastive", "top-1")
    assert published.find(*ours) is None


def test_runs_that_cannot_be_compared_are_left_out_and_named(tmp_path, folders):
    begun = fake_run(tmp_path / "begun", {STUDENT: {"kNN 20": 0.5}})
    runs.write_info(begun, replace(runs.read_info(begun), finished=False, steps=3))
    unscored = fake_run(tmp_path / "unscored", {STUDENT: {"kNN 20": 0.5}})
    (unscored / "scores.json").unlink()
    kept, left_out = finished([folders[0], begun, unscored])
    assert kept == [folders[0]]
    assert left_out == [
        f"{begun} stands at step 3 of 10, and is left out",
        f"{unscored} has no scores, and is left out",
    ]
    matched, _ = finished([tmp_path / "pkt-*"])
    assert matched == [folder for folder in folders if folder.name.startswith("pkt-")]
    with pytest.raises(UserError, match="stands at step 3"):
        finished([begun])
    with pytest.raises(UserError, match="nothing matches"):
        finished([tmp_path / "none-*"])


def test_unequal_budgets_are_named(tmp_path, folders):
    assert compare(folders).warning is None
    short = fake_run(tmp_path / "short", {STUDENT: {"kNN 20": 0.5}}, "train.epochs=6", "optim.warmup_epochs=0")
    runs.write_info(short, replace(runs.read_info(short), total_steps=3))
    comparison = compare([folders[0], short])
    assert "not trained for equally long" in comparison.warning
    assert "6 epochs, 768 images seen: short" in comparison.warning
    assert comparison.warning in writing.markdown(comparison)
