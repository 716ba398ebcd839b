"""Views made on the pretended GPU, all of a batch in one pass, beside those made on the CPU; prints JSON."""

import json

import torch

from tests.simulated_cuda.device import placing, pretended_gpu

SIZES = {"as large as the images": 32, "smaller": 24}


def main() -> None:
    found = {}
    with pretended_gpu() as counts:
        from ssl_transfer.data import PRESETS, Augment, Batches, Images

        generator = torch.Generator().manual_seed(0)
        coarse = torch.rand(48, 3, 5, 5, generator=generator)
        pixels = torch.nn.functional.interpolate(coarse, 32).mul(255).to(torch.uint8)
        with placing():
            there = pixels.cuda()
        for preset, views in PRESETS.items():
            for name, size in SIZES.items():
                batches = []
                for held in (pixels, there):
                    images = Images(held, None, None, "blotches", "train", (0.5,) * 3, (0.25,) * 3)
                    batches.append(Batches(images, [Augment(size, **view) for view in views], seed=0, batch_size=48))
                on_cpu = batches[0].batch(3).views
                counts.clear()
                on_gpu = batches[1].batch(3).views
                launches, waits = counts.launches.total(), dict(counts.waits)
                same = all(torch.equal(one, other.cpu()) for one, other in zip(on_cpu, on_gpu, strict=True))
                found[f"{preset}, {name}"] = {"same": same, "launches": launches, "waits": waits}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
