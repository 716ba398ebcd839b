"""Which folder belongs to which recipe."""

import json
import threading
from dataclasses import replace

import pytest

from ssl_transfer import config, runs
from ssl_transfer.errors import UserError
from ssl_transfer.runs.locks import locked
from tests.test_config import PRETRAIN


@pytest.fixture
def load(tmp_path):
    (tmp_path / "small.yaml").write_text(PRETRAIN)
    return lambda *overrides: config.load(tmp_path / "small.yaml", [f"train.runs={tmp_path / 'runs'}", *overrides])


def test_the_same_recipe_finds_its_folder_again(load):
    folder, notice = runs.claim(load())
    assert folder.name == "small" and notice is None
    assert runs.claim(load("train.log_every=7")) == (folder, None)
    assert runs.read_recipe(folder) == load("train.log_every=7")


def test_another_recipe_of_the_same_name_goes_beside_it_and_says_why(load):
    plain, _ = runs.claim(load())
    runs.write_info(plain, replace(runs.read_info(plain), steps=3))
    changed = load("optim.lr=1e-4")
    folder, notice = runs.claim(changed)
    assert folder.name == f"small-{config.identity_hash(changed)}" and folder != plain
    assert "optim.lr was 0.002, is 0.0001" in notice
    assert runs.claim(changed)[0] == folder
    assert runs.read_recipe(plain) == load()


def test_a_run_that_never_took_a_step_leaves_its_folder_to_the_next(load):
    refused, _ = runs.claim(load("data.batch_size=2000"))
    mended = load()
    assert runs.claim(mended) == (refused, None)
    assert runs.read_info(refused).identity == config.identity_hash(mended)
    assert runs.read_recipe(refused) == mended


@pytest.mark.parametrize("sign", ["a step", "the log", "a program at it"])
def test_a_run_that_has_begun_keeps_its_folder(load, sign):
    first, second = load(), load("optim.lr=1e-4")
    plain, _ = runs.claim(first)
    if sign == "a step":
        runs.write_info(plain, replace(runs.read_info(plain), steps=1))
    if sign == "the log":
        (plain / "metrics.jsonl").write_text("{}")
    if sign == "a program at it":
        with runs.exclusive_folder(first, refuse_to_wait):
            assert runs.claim(second)[0] != plain
    else:
        assert runs.claim(second)[0] != plain
    assert runs.read_info(plain).identity == config.identity_hash(first)
    # and it is found there again, also when nobody is at the other folder any more
    assert runs.folder_of(second)[0].name == f"small-{config.identity_hash(second)}"


def refuse_to_wait(folder, seconds):
    raise UserError(f"{folder} is in use")


def test_one_program_at_a_time_is_in_a_folder(load):
    with runs.exclusive_folder(load(), refuse_to_wait) as (folder, notice, info):
        assert (folder.name, notice, info.steps) == ("small", None, 0)
        with pytest.raises(UserError, match="small is in use"), runs.exclusive_folder(load(), refuse_to_wait):
            pass
    with runs.exclusive_folder(load(), refuse_to_wait) as (again, _, _):
        assert again == folder


def test_who_waited_for_a_folder_reads_what_was_done_meanwhile(load):
    def finish(folder, seconds):
        runs.write_info(folder, replace(runs.read_info(folder), steps=7, finished=True))
        first.__exit__(None, None, None)

    first = runs.exclusive_folder(load(), refuse_to_wait)
    first.__enter__()
    with runs.exclusive_folder(load(), finish) as (_, _, info):
        assert info.finished and info.steps == 7


def test_a_name_is_claimed_by_one_program_at_a_time(load, tmp_path):
    (tmp_path / "runs").mkdir()
    with locked(tmp_path / "runs"):
        other = threading.Thread(target=runs.claim, args=(load(),))
        other.start()
        other.join(0.3)
        assert other.is_alive() and not (tmp_path / "runs" / "small").exists()
    other.join(10)
    assert runs.read_info(tmp_path / "runs" / "small") is not None


def test_whose_name_was_taken_before_its_folder_was_locked_goes_beside(load, monkeypatch):
    first, second = load(), load("optim.lr=1e-4")
    claim, taken = runs.claim, []

    def claim_too_slowly(recipe):
        claimed = claim(recipe)
        if not taken:
            taken.append(claim(second))
            runs.write_info(claimed[0], replace(runs.read_info(claimed[0]), steps=1))
        return claimed

    monkeypatch.setattr(runs.folder, "claim", claim_too_slowly)
    with runs.exclusive_folder(first, refuse_to_wait) as (folder, _, info):
        assert folder.name == f"small-{config.identity_hash(first)}"
        assert info.identity == config.identity_hash(first)
    assert runs.read_info(folder.with_name("small")).identity == config.identity_hash(second)


def test_scores_are_of_the_kinds_and_the_images_that_decide_them(load):
    asked = "score=[{kind: knn, k: [5]}]"
    folder, _ = runs.claim(load(asked))
    scores = folder / "scores.json"
    assert not runs.has_scores(load(asked), folder)
    runs.write_scores(folder, [], runs.score_settings(load(asked)))
    assert runs.has_scores(load(asked), folder)
    assert runs.has_scores(load(asked, "data.workers=3", "data.download=false"), folder)
    for changed in ("score=[{kind: knn, k: [7]}]", "data.test=val", "data.train=part", "data.root=elsewhere"):
        assert not runs.has_scores(load(asked, changed), folder), changed
    # By a version that did not note the images, and whose kNN had fewer options.
    older = {"asked": [{"kind": "knn", "k": [5], "temperature": 0.1}], "scores": []}
    scores.write_text(json.dumps(older))
    assert runs.has_scores(load(asked), folder)
    assert not runs.has_scores(load("score=[{kind: knn, k: [5], weighted: false}]"), folder)
    scores.write_text(json.dumps(older | {"asked": [{"kind": "a kind that is gone"}]}))
    assert not runs.has_scores(load(asked), folder)


def test_a_folder_of_something_else_is_left_alone(load, tmp_path):
    theirs = tmp_path / "runs" / "small" / "thesis.tex"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("chapter one")
    with pytest.raises(UserError, match="exists and is not a run of this program; choose another name"):
        runs.claim(load())
    assert [path.name for path in theirs.parent.iterdir()] == ["thesis.tex"]


def test_a_folder_that_cannot_be_written_is_one_sentence(load, tmp_path):
    (tmp_path / "runs").write_text("a file where the folder should be")
    with pytest.raises(UserError, match="cannot write the run folder .* choose another with train.runs"):
        runs.claim(load())


def test_a_damaged_run_file_is_one_sentence(load):
    folder, _ = runs.claim(load())
    (folder / "run.json").write_text('{"identity": ')
    with pytest.raises(UserError, match="run.json is damaged"):
        runs.claim(load())


@pytest.mark.parametrize("trace", [None, "a step", "the log", "a file of somebody"])
def test_an_attempt_that_came_to_nothing_leaves_no_folder(load, trace):
    recipe = load()
    with pytest.raises(UserError), runs.exclusive_folder(recipe, refuse_to_wait) as (folder, _, info):
        if trace == "a step":
            runs.write_info(folder, replace(info, steps=1))
        elif trace is not None:
            (folder / ("metrics.jsonl" if trace == "the log" else "notes.txt")).write_text("{}")
        raise UserError("no such backbone")
    assert folder.exists() == (trace is not None)


def test_a_folder_of_another_user_is_one_sentence(load, monkeypatch):
    folder, _ = runs.claim(load())

    def refused(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("ssl_transfer.runs.folder.read_json", refused)
    with pytest.raises(UserError, match=r"run.json cannot be read \(Permission denied\): ask the user whose run it is"):
        runs.read_info(folder)
    monkeypatch.undo()
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(UserError, match=r"cannot write the run folder .*small \(Permission denied\); choose another"):
        runs.claim(load())
