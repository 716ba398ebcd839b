"""The page of a run: it holds every score and protocol, needs nothing else, and is there after every run."""

import json
import shutil
import subprocess
from dataclasses import asdict, replace
from html.parser import HTMLParser

import pytest

from ssl_transfer import config, runs
from ssl_transfer.cli import main
from ssl_transfer.errors import UserError
from ssl_transfer.report.details import Details, Query, Size
from ssl_transfer.report.page import write_report
from ssl_transfer.runs.suite_file import SuiteResults, write_suite
from ssl_transfer.scores.score import Score
from tests.fake_runs import fake_run
from tests.test_config import ROOT

ROWS = {
    "teacher (tiny_convnet)": {"kNN 20": 0.9412, "1/class": 0.812},
    "student (cifar_resnet8)": {"kNN 20": 0.9123, "1/class": 0.754},
    "raw pixels": {"kNN 20": 0.871, "1/class": 0.661},
}
VOID = {"meta", "link", "br", "img", "input", "path", "use", "rect"}
_PIXEL = b"iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M/wHwAEAQH/7yMK/gAAAABJRU5ErkJggg=="
DOT = f"data:image/png;base64,{_PIXEL.decode()}"
TEACHER, STUDENT = "teacher (tiny_convnet)", "student (cifar_resnet8)"
DETAILS = Details(
    sizes={TEACHER: Size(300_000, 12_000_000, 1000.0, "2 CPU threads"), STUDENT: Size(78_000, 5, 2.5, "2 CPU threads")},
    mapped=[4, 7],
    positions={TEACHER: [(0.0, 0.5), (1.0, 0.25)], STUDENT: [(0.5, 0.5), (0.125, 1.0)]},
    queries=[Query(4, {TEACHER: [7], STUDENT: [9]}, 0)],
    labels={4: 0, 7: 1, 9: 0},
    class_names=["wren", "<owl>"],
    thumbnails={4: DOT, 7: DOT, 9: DOT},
    confusion={TEACHER: [[5, 1], [0, 6]], STUDENT: [[3, 3], [2, 4]]},
    sample=12,
)


class Page(HTMLParser):
    """What a page holds, if it is well-formed."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.words: list[str] = []
        self.links: list[str] = []
        self.svgs = 0
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.svgs += tag == "svg"
        self.links += [value for name, value in attrs if name in ("src", "href", "xlink:href") and value]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture
def folder(tmp_path):
    about = {"retention": {"kNN 20": 0.9123 / 0.9412}, "date": "2026-01-02T03:04:05+00:00"}
    folder = fake_run(
        tmp_path / "run", ROWS, about=about, probe="knn", k=20, temperature=0.123, strengths={"0.5": 0.25}
    )
    rows = [{"step": step, "epoch": step / 10, "lr": 1e-3, "loss": 5 - step / 50} for step in range(100)]
    rows[49] |= {"knn": 0.5, "images_per_second": 100.0}
    rows[99] |= {"knn": 0.6, "images_per_second": 100.0}
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"step": 100, "lo')
    return folder


def test_every_score_and_every_protocol_is_on_the_page(folder):
    page = Page(write_report(folder).read_text())
    for shown in ("94.1", "91.2", "87.1", "81.2", "75.4", "66.1"):
        assert shown in page.text
    assert "kNN 20 94.1 91.2 87.1 97 %" in page.text and "1/class 81.2 75.4 66.1 93 %" in page.text
    for shown in ("probe knn", "k 20", "temperature 0.123", "strengths 0.5: 0.25", "layer features"):
        assert shown in page.text
    assert "The 20 training images of largest cosine to a test image decide its class" in page.text
    learned = (
        "cifar_resnet8 learned from the teacher tiny_convnet by the task relaxed_contrastive on digits, with seed 0."
    )
    assert learned in page.text and "200 images/s" in page.text
    assert "tiny_convnet, trained by the recipe digits-simclr; its features were transferred" in page.text
    assert (folder / "recipe.yaml").read_text() in "".join(page.words)


def test_the_page_needs_nothing_else_and_holds_the_curves(folder):
    page = Page(write_report(folder).read_text())
    assert page.svgs == 3  # loss, learning rate, and the monitored neighbors
    for label in ("loss", "learning rate", "kNN among training images"):
        assert label in page.text
    assert all(link.startswith("#") for link in page.links)


def test_shares_are_percentages_and_held_out_images_are_named(folder, tmp_path):
    recipe = (folder / "recipe.yaml").read_text()
    (folder / "recipe.yaml").write_text(recipe.replace("dataset: digits", "dataset: digits\n  held_out: 100", 1))
    runs.write_info(folder, runs.RunInfo(config.identity_hash(config.load(folder / "recipe.yaml")), finished=True))
    text = Page(write_report(folder).read_text()).text
    assert "kNN among held-out images [%]" in text and "60" in text.split()


def test_the_verdict_says_what_was_kept_and_what_is_worse_than_nothing(tmp_path):
    rows = {
        TEACHER: {"kNN 20": 0.8, "linear": 0.5},
        STUDENT: {"kNN 20": 0.6, "linear": 0.5},
        "untrained (cifar_resnet8)": {"kNN 20": 0.7, "linear": 0.4},
        "raw pixels": {"kNN 20": 0.1, "linear": 0.55},
    }
    about = {"date": "2026-01-02T03:04:05+00:00"}
    folder = fake_run(tmp_path / "run", rows, about=about, probe="knn")
    (folder / "details.json").write_text(json.dumps(asdict(DETAILS)))
    text = Page(write_report(folder).read_text()).text
    assert "keeps 88 % of its teacher's scores on average, and least of kNN 20, 75 %, with 26 % of its weights." in text
    assert "Look into this. It is worse than the same network before training in kNN 20 (60.0 against 70.0)." in text
    assert "It is worse than raw pixels in linear (50.0 against 55.0)." in text


def test_without_labels_the_verdict_is_of_the_agreement_and_measures_that_belong_together_are_explained_once(tmp_path):
    rows = {
        STUDENT: {"overlap 10": 0.12, "CKA": 0.3},
        "untrained (cifar_resnet8)": {"overlap 10": 0.11, "CKA": 0.2},
        "raw pixels": {"overlap 10": 0.16, "CKA": 0.4},
    }
    about = {"date": "2026-01-02T03:04:05+00:00"}
    folder = fake_run(tmp_path / "run", rows, about=about, probe="agreement")
    page = Page(write_report(folder).read_text())
    agreed = "overlap 10 12.0 (before training 11.0), CKA 30.0 (before training 20.0)."
    assert f"How far the student agrees with its teacher, in %: {agreed}" in page.text
    worse = "overlap 10 (12.0 against 16.0), CKA (30.0 against 40.0)."
    assert f"Look into this. It is worse than raw pixels in {worse}" in page.text
    how = page.text.partition("How each number was taken")[2]
    assert how.split("How alike")[0].strip() == "overlap 10, CKA" and how.count("How alike") == 1


def test_the_details_are_on_the_page(folder):
    (folder / "details.json").write_text(json.dumps(asdict(DETAILS)))
    text = write_report(folder).read_text()
    page = Page(text)
    assert f"{TEACHER} 300,000 12.00 M 1,000" in page.text and f"{STUDENT} 78,000 0.00 M 2" in page.text
    assert text.count("<circle") == 4 and 'cx="150.0" cy="150.0"' in text
    assert text.count('<img class="other"') == 1  # the teacher's neighbor is of another class
    assert "0 in common teacher student" in page.text  # names of networks are in the tables
    assert f"{STUDENT}: 5 wrong" in page.text and f"{TEACHER}: 1 wrong" in page.text
    assert "12 test images by a vote of their 20 nearest training images" in page.text
    assert "<owl>" in page.text and "<owl>" not in text
    assert all(link.startswith(("#", "data:image/png")) for link in page.links)


def test_mistakes_of_a_linear_probe_are_said_to_be_its_own(folder):
    (folder / "details.json").write_text(json.dumps(asdict(replace(DETAILS, confused_by="linear"))))
    text = Page(write_report(folder).read_text()).text
    assert "The classes that the linear probe, linear in the table, gives 12 test images." in text
    assert "vote of" not in text


@pytest.mark.parametrize(
    ("teacher", "words"),
    [
        ("{timm: resnet18, image_size: 96}", "resnet18 with the weights published by timm, shown images of 96 px"),
        ("{file: a/net.pth, backbone: resnet50, output: logits}", "resnet50 with the weights in a/net.pth; its logits"),
        ("{checkpoint: runs/old, output: projection}", "the model in runs/old; its projection was transferred"),
        ("[{timm: resnet18, weight: 2}, {torchvision: resnet50}]", "were transferred, with weight 2"),
    ],
)
def test_teachers_are_described_in_words(teacher, words, tmp_path):
    folder = fake_run(tmp_path / "run", {"student (small)": {"kNN 20": 0.5}}, f"task.teacher={teacher}")
    assert words in Page(write_report(folder).read_text()).text


def test_damaged_details_are_left_out_with_a_warning(folder, caplog):
    whole = Page(write_report(folder).read_text()).text
    (folder / "details.json").write_text('{"sizes": ')
    assert Page(write_report(folder).read_text()).text == whole
    assert "details.json is damaged" in caplog.text and f"ssl-transfer score {folder}" in caplog.text


CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium or google-chrome on the path")
@pytest.mark.parametrize("width", [400, 1280])
def test_a_browser_shows_it_without_complaint_and_nothing_sticks_out(width, folder, tmp_path):
    assert CHROMIUM is not None
    (folder / "details.json").write_text(json.dumps(asdict(DETAILS)))
    write_report(folder)
    # Inside a frame of the width: windows of a browser have a least width of their own.
    (folder / "frame.html").write_text(
        f'<iframe src="report.html" style="width: {width}px; height: 900px; border: 0" '
        "onload='const page = this.contentDocument.documentElement;"
        "document.title = `sticks out by ${page.scrollWidth - page.clientWidth} px`'></iframe>"
    )
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--window-size=1400,1000"]
    options += ["--allow-file-access-from-files", f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"]
    shown = subprocess.run(
        [CHROMIUM, *options, (folder / "frame.html").as_uri()], capture_output=True, text=True, timeout=120
    )
    assert "<title>sticks out by 0 px</title>" in shown.stdout, shown.stdout[:500]
    assert "CONSOLE" not in shown.stderr


def test_the_same_run_gives_the_same_page(folder):
    first = write_report(folder).read_text()
    assert write_report(folder).read_text() == first


def test_what_a_recipe_says_is_no_markup(tmp_path):
    folder = fake_run(tmp_path / "run", {"student (<b>)": {"kNN 20": 0.5}}, "data.root=<script>alert(1)</script>")
    text = write_report(folder).read_text()
    assert "<script>" not in text and "<b>" not in text
    assert "student <b>" in Page(text).text


def test_a_run_without_scores_or_steps_has_a_page_too(tmp_path):
    folder = fake_run(tmp_path / "run", {})
    (folder / "scores.json").unlink()
    page = Page(write_report(folder).read_text())
    assert "This run has not been scored." in page.text and "No step has been logged." in page.text


def test_another_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match="is no run folder"):
        write_report(tmp_path)


@pytest.mark.slow
def test_a_run_its_teacher_and_scoring_again_write_the_page(tmp_path):
    small = ["data.batch_size=48", "train.steps=2", "train.cpu_threads=1", "score=[{kind: knn, k: [5]}]"]
    small += ["task.teacher.recipe.data.batch_size=48", "task.teacher.recipe.train.steps=2"]
    main(["run", str(ROOT / "recipes/digits/transfer.yaml"), *small, f"train.runs={tmp_path}"])
    student = tmp_path / "digits-transfer"
    assert "kNN 5" in Page((student / "report.html").read_text()).text
    assert "has not been scored" in Page((tmp_path / "digits-simclr" / "report.html").read_text()).text
    main(["score", str(student), "score=[{kind: knn, k: [7]}]"])
    text = Page((student / "report.html").read_text()).text
    assert "kNN 7" in text
    for score in json.loads((student / "scores.json").read_text())["scores"]:
        assert f"{100 * score['value']:.1f}" in text


def test_a_suite_in_the_runs_folder_is_a_section_of_its_report(tmp_path):
    folder = fake_run(tmp_path / "run", {"student (small)": {"kNN 20": 0.5}})
    assert "Elsewhere" not in write_report(folder).read_text()
    protocol = {"set": "pets", "measure": "mean per class", "probe": "linear", "penalty": 0.5}
    scores = [
        Score("teacher (big)", "teacher", "linear", 0.8, protocol),
        Score("student (small)", "student", "linear", 0.64, protocol),
    ]
    missing = {"food101": "there is no whole food101 below data"}
    write_suite(folder / "suite", SuiteResults(scores, missing, {}, {"on": ["pets", "food101"], "images": None}))
    page = write_report(folder).read_text()
    assert "Elsewhere" in page and "no whole food101" in page and "<td>penalty</td><td>0.5</td>" in page
    row = page[page.index("<td>pets</td>") :].partition("</tr>")[0]
    cells = [cell.partition("<")[0] for cell in row.split("<td>")[1:]]
    assert cells == ["pets", "mean per class", "80.0", "64.0", "80 %"]
