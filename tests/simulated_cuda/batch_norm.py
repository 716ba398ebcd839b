"""SyncBatchNorm on two pretended GPUs beside the plain layer on one process, in float64 and under autocast."""

import sys

import torch
import torch.distributed as dist
from torch import nn
from torch.multiprocessing import spawn

from tests.processes import find_free_port

ROWS = 12


def compare(rank: int, world: int, port: int) -> None:
    from tests.simulated_cuda.device import placing, pretended_gpu

    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"tcp://localhost:{port}", rank=rank, world_size=world)
    with pretended_gpu() as counts:
        from ssl_transfer.distributed import synchronize_batch_norm

        for make in (nn.BatchNorm2d, lambda width: nn.BatchNorm2d(width, affine=False)):
            for layout in (torch.contiguous_format, torch.channels_last):
                for narrow in (False, True):
                    generator = torch.Generator().manual_seed(0)
                    images = 5 + torch.randn(ROWS, 3, 4, 4, generator=generator, dtype=torch.float64)
                    weight = torch.randn(ROWS, 3, 4, 4, generator=generator, dtype=torch.float64)
                    images = images.to(torch.bfloat16).double()  # so that both have the same
                    alone = make(3).double()
                    own = slice(rank * ROWS // world, (rank + 1) * ROWS // world)
                    with placing():
                        layer = synchronize_batch_norm(make(3).double() if not narrow else make(3)).cuda()
                        share = (images[own].bfloat16() if narrow else images[own]).cuda()
                        share = share.contiguous(memory_format=layout).requires_grad_()
                        factor = weight[own].to(share.dtype).cuda()
                    images.requires_grad_()
                    expected = alone(images)
                    (expected * weight).sum().backward()
                    counts.clear()
                    found = layer(share)
                    (found * factor).sum().backward()
                    assert not counts.waits, counts.waits
                    assert counts.collectives.total() == 2, counts.collectives
                    assert found.dtype == share.dtype
                    limit = dict(rtol=2e-2, atol=3e-2) if narrow else dict(rtol=1e-10, atol=1e-10)
                    torch.testing.assert_close(found.detach().cpu().double(), expected.detach()[own], **limit)
                    torch.testing.assert_close(share.grad.cpu().double(), images.grad[own], **limit)
                    limit = dict(rtol=1e-5, atol=1e-5) if narrow else dict(rtol=1e-12, atol=1e-12)
                    for name, buffer in alone.named_buffers():
                        torch.testing.assert_close(layer.get_buffer(name).cpu().to(buffer.dtype), buffer, **limit)
                    for one, other in zip(alone.parameters(), layer.parameters(), strict=True):
                        total = other.grad.cpu().double()
                        dist.all_reduce(total)
                        limit = dict(rtol=2e-2, atol=0.5) if narrow else dict(rtol=1e-10, atol=1e-10)
                        torch.testing.assert_close(total, one.grad, **limit)
    dist.destroy_process_group()


if __name__ == "__main__":
    spawn(compare, (2, find_free_port()), nprocs=2)
    sys.exit(0)
