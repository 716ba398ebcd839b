"""torchvision's operations, one image at a time: the slow twin of ssl_transfer/data/augment.py."""

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from ssl_transfer.data.views.augment import Augment, Parameters
from ssl_transfer.data.views.blur import blur_radius
from ssl_transfer.data.views.color import JITTER_ORDERS


def apply(augment: Augment, images: Tensor, parameters: Parameters) -> Tensor:
    """Every view of the batch, by torchvision on float images in [0, 1]."""
    return torch.stack([view(augment, image / 255, parameters[row : row + 1]) for row, image in enumerate(images)])


def view(augment: Augment, image: Tensor, parameters: Parameters) -> Tensor:
    image = crop(augment, image, parameters.box[0].tolist())
    if parameters.flip:
        image = F.horizontal_flip(image)
    adjust = [
        lambda image: F.adjust_brightness(image, parameters.brightness.item()),
        lambda image: F.adjust_contrast(image, parameters.contrast.item()),
        lambda image: F.adjust_saturation(image, parameters.saturation.item()),
        lambda image: F.adjust_hue(image, parameters.hue.item()),
    ]
    for operation in JITTER_ORDERS[parameters.order]:
        image = adjust[operation](image)
    if parameters.grayscale:
        image = F.rgb_to_grayscale(image, num_output_channels=len(image))
    if parameters.sigma > 0:
        width = 2 * int(blur_radius(parameters.sigma, augment.size)) + 1
        image = F.gaussian_blur(image, [width, width], [parameters.sigma.item()] * 2)
    if parameters.solarize:
        image = F.solarize(image, augment.solarize_threshold * _white(image))
    if augment.cutout:
        image = hide(image, *(int(center) - augment.cutout // 2 for center in parameters.cutout[0]), augment.cutout)
    return image


def crop(augment: Augment, image: Tensor, box: list[int]) -> Tensor:
    if augment.crop_padding:
        padding = augment.crop_padding
        padded = F.pad(image, [padding] * 4, padding_mode="reflect")
        return F.crop(padded, box[0] + padding, box[1] + padding, box[2], box[3])
    return F.resized_crop(image, *box, [augment.size] * 2, antialias=True)


def hide(image: Tensor, top: int, left: int, side: int) -> Tensor:
    """A square that sticks out at the top or left is shortened there; torchvision cuts at the other two sides."""
    height, width = side + min(top, 0), side + min(left, 0)
    return F.erase(image, max(top, 0), max(left, 0), height, width, torch.tensor(0.5 * _white(image)))


def _white(image: Tensor) -> int:
    return 1 if image.is_floating_point() else 255
