"""Compiled networks take the steps that they take otherwise."""

import json
import subprocess
import sys

import pytest
import torch

from tests.models.compiled_steps import NETWORKS


def compiled_steps():
    done = subprocess.run([sys.executable, "-m", "tests.models.compiled_steps"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU: the test marked gpu compiles for it")
def test_compiled_networks_take_the_same_steps():
    check(compiled_steps())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_networks_that_are_compiled_for_a_gpu_take_the_same_steps():
    check(compiled_steps())


def check(found):
    generated = found.pop("generated")
    assert generated["loss"] < 1e-5 and generated["gradient"] < 1e-3 and generated["graphs"] > 0
    assert found.keys() == NETWORKS.keys()
    for name, row in found.items():
        assert row["loss"] < 1e-10 and row["gradient"] < 1e-8, (name, row)
        assert row["graphs"] >= NETWORKS[name] and not row["breaks"], (name, row)
