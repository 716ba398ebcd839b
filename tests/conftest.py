import gc
import json
import os
import runpy
import signal
import sys
from pathlib import Path

import pytest
import torch

from tests.processes import find_free_port

# One thread a test process: the networks here are tiny, and threads that wait for each other cost more than they give.
os.environ["OMP_NUM_THREADS"] = "1"
torch.set_num_threads(1)

# A shell lets what it starts in the background ignore Ctrl-C, which programs that tests interrupt would inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).parent.parent


def pytest_collection_finish() -> None:
    """Keep the garbage collector from what was imported: each end of training asks it for everything, 0.4 s a time."""
    gc.freeze()


def pytest_sessionfinish() -> None:
    gc.unfreeze()  # or libraries report as leaked what is only freed at the end


@pytest.fixture
def free_port() -> int:
    return find_free_port()


@pytest.fixture
def recipes() -> Path:
    return ROOT / "recipes"


@pytest.fixture
def program(monkeypatch, tmp_path):
    """Run a program of eval/ as a person does, but in this process; returns the scores that it writes."""

    def run(command: str, *arguments: object) -> list[dict]:
        name, *words = command.split()
        monkeypatch.setattr(
            sys, "argv", [f"{name}.py", *map(str, arguments), *words, "--json", f"{tmp_path}/found.json"]
        )
        runpy.run_path(str(ROOT / "eval" / f"{name}.py"), run_name="__main__")
        return json.loads((tmp_path / "found.json").read_text())["scores"]

    return run


@pytest.fixture(scope="session")
def every_score():
    from tests.scores.subjects import EVERY_KIND, kinds, scores_of

    asked = kinds(*EVERY_KIND)
    return asked, [*scores_of("student (small)", 0, asked), *scores_of("untrained (small)", 3, asked)]


@pytest.fixture(scope="module")
def digits():
    from ssl_transfer.data import load_images

    return [load_images("digits", Path(), split=split, download=False) for split in ("train", "test")]


@pytest.fixture
def model(digits):
    """A small network with an embedding head, in eval mode."""
    from ssl_transfer.models.checkpoint import HeadSpec, ModelSpec, build_model

    spec = ModelSpec("cifar_resnet8", "default", 1, 8, digits[0].mean, digits[0].std, head=HeadSpec("embedding", 16))
    return build_model(spec).eval()
