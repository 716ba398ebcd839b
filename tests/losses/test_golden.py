"""Values and gradients of the authors' code; tests/golden/README.md says whose, and how they were made."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from ssl_transfer import losses

GOLDEN = Path(__file__).parents[1] / "golden"
CASES = json.loads((GOLDEN / "transfer_losses.json").read_text())
ARRAYS = np.load(GOLDEN / "transfer_losses.npz")


def multi_similarity(student, teacher, **options):
    """The authors take rows i and i + n/2 for two views of one image."""
    image = torch.arange(len(student)) % (len(student) // 2)
    return losses.relaxed_multi_similarity(student, teacher, image, affinity="gaussian", **options)


def dark_rank(student, teacher, *, alpha, beta, permute_len):
    return losses.dark_rank(student, teacher, alpha=float(alpha), beta=float(beta), length=permute_len)


def soft_targets(student, teacher, *, temperature):
    return losses.soft_targets(student, teacher, temperature=float(temperature))


OURS = {
    "relaxed_contrastive": partial(losses.relaxed_contrastive, affinity="gaussian"),
    "relaxed_ms": multi_similarity,
    "rkd_distance": losses.rkd_distance,
    "rkd_angle": losses.rkd_angle,
    "pkt": losses.pkt,
    "darkrank_hard": dark_rank,
    "similarity_preserving": losses.similarity_preserving,
    "kd": soft_targets,
}


def test_every_golden_case_has_a_loss_of_ours():
    assert len(CASES) == 110
    assert {case["loss"] for case in CASES} == set(OURS)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["key"])
def test_value_and_gradient_are_the_authors(case):
    student = torch.from_numpy(ARRAYS[case["inputs"] + "/student"]).requires_grad_()
    teacher = torch.from_numpy(ARRAYS[case["inputs"] + "/teacher"])
    value = OURS[case["loss"]](student, teacher, **case["params"])
    value.backward()
    expected = torch.from_numpy(ARRAYS[case["key"] + "/grad"])
    # Two rows have one distance, so that several losses are constant there: what is left is rounding, 1e-15.
    torch.testing.assert_close(value.item(), case["value"], rtol=1e-9, atol=1e-14)
    assert (student.grad - expected).norm() <= 1e-9 * expected.norm() + 1e-14


def test_the_example_worked_by_hand():
    student = torch.tensor([[0.0, 0.0], [3.0, 4.0], [6.0, 8.0]], dtype=torch.float64)
    teacher = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]], dtype=torch.float64)
    value = losses.relaxed_contrastive(student, teacher, affinity="gaussian", sigma=1.0)
    torch.testing.assert_close(value.item(), 2.2341178674, rtol=0, atol=1e-10)
