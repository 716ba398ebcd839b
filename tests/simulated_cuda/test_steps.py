"""No task waits for a GPU within a step, and none asks more of it than it did: see steps.py, which prints the table."""

import json
import subprocess
import sys

import pytest
import torch

from ssl_transfer.catalog.presets import PRESETS
from tests.simulated_cuda import banks, steps

# The launches of a step but for those that make its batch, most of them by cifar_resnet8 forward and backward. They may
# fall, and are then lowered here; a tenth more is allowed for other versions of torch.
LAUNCHES = {
    "simclr": 165,
    "simclr adamw ema clip": 178,
    "simclr lars": 184,
    "simclr in parts": 434,
    "moco": 230,
    "moco symmetric": 442,
    "moco_v3": 468,
    "classify": 116,
    "classify mixup cutmix": 164,
    "relaxed_contrastive contextual": 288,
    "relaxed_contrastive beside labels": 268,
    "relaxed_contrastive fixed views": 205,
    "relaxed_contrastive": 247,
    "relaxed_multi_similarity": 271,
    "rkd": 363,
    "pkt": 207,
    "dark_rank": 240,
    "similarity_preserving": 188,
    "correlation_congruence": 202,
    "regression": 175,
    "seed": 208,
    "fitnet": 212,
    "attention_transfer": 284,
    "vid": 302,
    "crd": 447,
    "soft_targets": 164,
    "metric proxy_anchor": 210,
    "metric multi_similarity": 199,
    "metric contrastive": 184,
    "metric triplet": 166,
    "metric normalized_softmax": 169,
    "streamed": 165,
}
VIEWS = 120  # launches that make the two views of a batch of SimCLR
BLURRED, RESIZED = 63, 66  # more, where views are blurred, or smaller than their images: docs/scale.md says why
# pytorch-metric-learning looks for pairs and proxies by operations whose results have a size of their own.
WAITS = {"metric proxy_anchor": 5, "metric multi_similarity": 3, "metric contrastive": 6, "metric triplet": 3}
ON_TWO = ["simclr", "moco_v3", "classify", "relaxed_contrastive", "fitnet", "crd"]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not torch.backends.cuda.is_built(), reason="this torch knows no CUDA kernels to ask for"),
    pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU: the tests marked gpu run on it"),
]


@pytest.fixture(scope="module")
def on_one(tmp_path_factory):
    return steps.run(list(steps.TASKS), tmp_path_factory.mktemp("one"), 1, "cifar_resnet8")


@pytest.fixture(scope="module")
def on_two(tmp_path_factory):
    return steps.run(ON_TWO, tmp_path_factory.mktemp("two"), 2, "cifar_resnet8")


@pytest.mark.parametrize("name", steps.TASKS)
def test_every_task_runs_on_one_gpu_without_waiting(on_one, name):
    row = on_one[name]
    assert row["problem"] is None, row["problem"]
    assert not row["without_kernel"]
    assert row["waits"] <= WAITS.get(name, 0), row["where"]
    assert row["views"] <= 1.1 * VIEWS, row["heaviest"]  # with labels and the teacher's memory
    assert row["launches"] - row["views"] <= 1.1 * LAUNCHES[name], row["heaviest"]


@pytest.mark.parametrize("name", ON_TWO)
def test_tasks_run_on_two_gpus_without_waiting(on_two, name):
    row = on_two[name]
    assert row["problem"] is None, row["problem"]
    # Every two seconds the processes agree on whether to stop, which a slow machine meets within these few steps.
    agreeing = sum(count for place, count in row["where"].items() if "training/agreement.py" in place)
    assert row["waits"] - agreeing == 0, row["where"]


def test_two_gpus_take_one_collective_a_pass_for_each_batch_norm(on_two):
    norms, rows, gradients = 11, 1, 1  # those of cifar_resnet8 and the projection head; the loss gathers; DDP adds up
    assert on_two["simclr"]["collectives"] <= 2 * (norms + rows) + gradients


def test_the_tests_marked_gpu_pass_on_the_pretended_one():
    command = [sys.executable, "-m", "tests.simulated_cuda.marked", "-q"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stdout[-10_000:] + done.stderr


def test_what_a_gpu_refuses_is_refused_and_what_it_waits_for_is_counted():
    done = subprocess.run([sys.executable, "-m", "tests.simulated_cuda.mistakes"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    refused = {name for name, answer in said.items() if "Error" in answer}
    assert refused == {"both devices", "cpu indexed by cuda", "numpy", "pin"}
    passed = {name for name, answer in said.items() if answer == "nothing"}
    assert passed == {"pinned", "made there", "scalar", "backward"}
    waited = {name: answer for name, answer in said.items() if name not in refused | passed}
    assert {name: answer.split(" in ")[0] for name, answer in waited.items()} == {
        "item": "_local_scalar_dense",
        "branch": "_local_scalar_dense",
        "nonzero": "nonzero",
        "mask": "index by a mask",
        "cuda indexed by cpu": "an index from pageable memory",
        "tensor of data": "a copy of data to the device",
        "pageable": "a copy from pageable memory",
        "to the host": "a copy to the host",
    }


def test_views_of_a_batch_are_made_in_one_pass_and_are_those_of_a_cpu():
    done = subprocess.run([sys.executable, "-m", "tests.simulated_cuda.views"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name, row in json.loads(done.stdout).items():
        assert row["same"] and not row["waits"], (name, row)
        preset, size = name.split(", ")
        blurred = any(view.get("blur") for view in PRESETS[preset])
        assert row["launches"] <= VIEWS + BLURRED * blurred + RESIZED * (size == "smaller"), (name, row)


def test_batch_norm_by_the_kernels_of_a_gpu_is_that_of_one_process():
    done = subprocess.run(
        [sys.executable, "-m", "tests.simulated_cuda.batch_norm"], capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_gpu_searches_a_bank_that_is_not_on_it():
    command = [sys.executable, "-m", "tests.simulated_cuda.banks"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == banks.scores_on("cpu")
