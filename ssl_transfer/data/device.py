"""Small tensors from the CPU to the device that holds the images."""

import torch
from torch import Tensor


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy without waiting for the work queued on a GPU, which a copy from pageable memory would do."""
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def to_device_together(device: torch.device, *tensors: Tensor) -> list[Tensor]:
    """Copies of all tensors, by one transfer to a GPU."""
    if device.type != "cuda":
        return [tensor.to(device) for tensor in tensors]
    # The widest numbers first, so that each lies where a number of its width may.
    order = sorted(range(len(tensors)), key=lambda place: -tensors[place].element_size())
    raw = [tensors[place].contiguous().flatten().view(torch.uint8) for place in order]
    packed = to_device(torch.cat(raw), device)
    copies: dict[int, Tensor] = {}
    for place, part in zip(order, packed.split([len(part) for part in raw]), strict=True):
        copies[place] = part.view(tensors[place].dtype).view(tensors[place].shape)
    return [copies[place] for place in range(len(tensors))]
