"""The page of a run: it holds every score and protocol, needs nothing else, and is there after every run."""

import json
from html.parser import HTMLParser

import pytest

from ssl_transfer.cli import main
from ssl_transfer.errors import UserError
from ssl_transfer.report.page import write_report
from tests.fake_runs import fake_run
from tests.test_config import ROOT

ROWS = {
    "teacher (tiny_convnet)": {"kNN 20": 0.9412, "1/class": 0.812},
    "student (cifar_resnet8)": {"kNN 20": 0.9123, "1/class": 0.754},
    "raw pixels": {"kNN 20": 0.871, "1/class": 0.661},
}
VOID = {"meta", "link", "br", "img", "input", "path", "use", "rect"}


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
    assert "student / teacher 97 %" in page.text
    for shown in ("probe knn", "k 20", "temperature 0.123", "strengths 0.5: 0.25", "layer features"):
        assert shown in page.text
    assert "relaxed_contrastive from tiny_convnet" in page.text and "200 images/s" in page.text
    assert (folder / "recipe.yaml").read_text() in "".join(page.words)


def test_the_page_needs_nothing_else_and_holds_the_curves(folder):
    page = Page(write_report(folder).read_text())
    assert page.svgs == 3  # loss, learning rate, and the monitored neighbors
    for label in ("loss", "learning rate", "kNN among training images"):
        assert label in page.text
    assert all(link.startswith("#") for link in page.links)


def test_the_same_run_gives_the_same_page(folder):
    first = write_report(folder).read_text()
    assert write_report(folder).read_text() == first


def test_what_a_recipe_says_is_no_markup(tmp_path):
    folder = fake_run(tmp_path / "run", {"student (<b>)": {"kNN 20": 0.5}}, "data.root=<script>alert(1)</script>")
    text = write_report(folder).read_text()
    assert "<script>" not in text and "student (<b>)" not in text
    assert "student (<b>)" in Page(text).text


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
