"""Compiled networks take the steps that they take otherwise."""

import json
import subprocess
import sys
from copy import deepcopy

import pytest
import torch
from torch import nn

from ssl_transfer.distributed import synchronize_batch_norm
from ssl_transfer.models import EmbeddingModel, ProjectionHead, create_backbone
from ssl_transfer.models.compiled import compile_networks
from tests.models.compiled_steps import NETWORKS
from tests.processes import on_two_processes


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
    assert found.keys() == NETWORKS.keys() | {"simclr, generated"}
    for name, row in found.items():
        assert row["loss"] < 1e-10 and row["gradient"] < 1e-8, (name, row)
        assert row["graphs"] >= NETWORKS[name.partition(",")[0]] and not row["breaks"], (name, row)


def check_synchronized(rank):
    torch.manual_seed(0)
    backbone = create_backbone("cifar_resnet8", image_size=16, mean=(0.5,) * 3, std=(0.25,) * 3)
    head = ProjectionHead(backbone.num_features, hidden_dim=32, embedding_dim=8)
    plain = synchronize_batch_norm(nn.Sequential(EmbeddingModel(backbone, head).double())).train()
    compiled = deepcopy(plain)
    compile_networks(compiled, backend="aot_eager")
    generator = torch.Generator().manual_seed(rank)
    images, weights = (torch.rand(4, *shape, generator=generator).double() for shape in ((3, 16, 16), (8,)))
    for network in (plain, compiled):
        (network(images) * weights).sum().backward()
    for one, other in zip(compiled.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)
    torch.testing.assert_close(dict(compiled.named_buffers()), dict(plain.named_buffers()))


@pytest.mark.slow
def test_compiled_networks_normalize_over_all_processes():
    on_two_processes(check_synchronized)
