import os
from pathlib import Path

import pytest
import torch

from tests.processes import find_free_port

# One thread a test process: the networks here are tiny, and threads that wait for each other cost more than they give.
os.environ["OMP_NUM_THREADS"] = "1"
torch.set_num_threads(1)

ROOT = Path(__file__).parent.parent


@pytest.fixture
def free_port() -> int:
    return find_free_port()


@pytest.fixture
def recipes() -> Path:
    return ROOT / "recipes"
