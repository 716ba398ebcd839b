"""Small tensors from the CPU to the device that holds the images."""

import torch
from torch import Tensor


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy without waiting for the work queued on a GPU, which a copy from pageable memory would do."""
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
