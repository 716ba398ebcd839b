"""Steps with compiled networks beside plain ones; a process of its own, without checks of shapes to fuse across.

Prints, for each task, how far its loss and its gradient are from those of the plain networks, as shares of these, and
into how many graphs the networks were compiled. All tasks through the tracing of torch.compile alone; the first one
through its code generator too. In float64: in float32 another rounding switches a ReLU here and there, a thousandth of
the gradient each.
"""

import json
import tempfile
from functools import partial
from pathlib import Path

import torch
from torch._dynamo.utils import counters

from ssl_transfer.models.compiled import compile_networks
from tests.simulated_cuda import steps
from tests.stepping import handed, load, step

# How many networks each task has: a student, a teacher or trailing copy, a predictor.
NETWORKS = {
    **{"simclr": 1, "simclr in parts": 1, "moco symmetric": 2, "moco_v3": 3, "classify": 1, "relaxed_contrastive": 2},
    **{"relaxed_contrastive beside labels": 2, "fitnet": 2, "crd": 2},
}


def compared(task, batch, **options: str) -> dict[str, float]:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    plain_loss, plain_gradient = step(task, batch, device, torch.float64)
    counters.clear()
    loss, gradient = step(task, batch, device, torch.float64, change=partial(compile_networks, **options))
    difference = (gradient - plain_gradient).norm() / plain_gradient.norm()
    graphs, breaks = counters["stats"]["unique_graphs"], counters["graph_break"].total()
    return {
        "loss": abs(loss / plain_loss - 1).item(),
        "gradient": difference.item(),
        "graphs": graphs,
        "breaks": breaks,
    }


if __name__ == "__main__":
    found = {}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        steps.prepare(folder)
        for name in NETWORKS:
            task, batch_of = handed(load(folder, name))
            found[name] = compared(task, batch_of(1), backend="aot_eager")
            if name == "simclr":
                found["simclr, generated"] = compared(task, batch_of(1))
            torch._dynamo.reset()
    print(json.dumps(found))
