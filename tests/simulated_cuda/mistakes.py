"""Programs that a GPU refuses or waits for, on the pretended one; prints what it said as JSON."""

import json
from collections.abc import Callable

import torch

from tests.simulated_cuda.device import CUDA, placing, pretended_gpu


def said(program: Callable[[], object]) -> str:
    try:
        program()
    except (RuntimeError, TypeError) as error:
        return f"{type(error).__name__}: {error}"
    return "; ".join(counts.waits) or "nothing"


with pretended_gpu() as counts:
    with placing():
        here, there, index = torch.arange(6.0), torch.arange(6.0).cuda(), torch.arange(3)
    there.requires_grad_()
    programs: dict[str, Callable[[], object]] = {
        "both devices": lambda: here + there,
        "cpu indexed by cuda": lambda: here[index.to(CUDA)],
        "numpy": lambda: there.detach().numpy(),
        "pin": lambda: there.detach().pin_memory(),
        "item": lambda: there.sum().item(),
        "branch": lambda: bool(there.sum() > 0),
        "nonzero": lambda: there.nonzero(),
        "mask": lambda: there[there > 2],
        "cuda indexed by cpu": lambda: there[index],
        "tensor of data": lambda: torch.tensor([1.0], device=CUDA),
        "pageable": lambda: here.to(CUDA),
        "to the host": lambda: there.detach().cpu(),
        "pinned": lambda: here.pin_memory().to(CUDA, non_blocking=True),
        "made there": lambda: torch.zeros(3, device=CUDA) + there[:3],
        "scalar": lambda: there * 2 + torch.tensor(3.0),
        "backward": lambda: (there.square() * there.new_ones(6)).sum().backward(),
    }
    answers = {}
    for name, program in programs.items():
        counts.clear()
        answers[name] = said(program)
print(json.dumps(answers))
