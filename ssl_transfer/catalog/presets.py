"""Named augmentations: for each view the keyword arguments of ``Augment``, size left out. Plain data, no torch."""

from typing import Any

# Chen et al., "A simple framework for contrastive learning" (ICML 2020), appendix B.9: CIFAR-10 with crop, flip and
# color distortion of strength 0.5, no blur. Appendix A: strength s is 0.8 s for brightness, contrast and saturation,
# 0.2 s for hue, applied with probability 0.8, then grayscale with 0.2.
_SIMCLR: dict[str, Any] = dict(
    crop_scale=(0.08, 1.0),
    flip=0.5,
    color_jitter=0.8,
    brightness=0.4,
    contrast=0.4,
    saturation=0.4,
    hue=0.1,
    grayscale=0.2,
)

# Wu et al. (CVPR 2018), as used by He et al., "Momentum contrast" (CVPR 2020), section 3.3.
_MOCO_V1: dict[str, Any] = dict(
    crop_scale=(0.2, 1.0),
    flip=0.5,
    color_jitter=1.0,
    brightness=0.4,
    contrast=0.4,
    saturation=0.4,
    hue=0.4,
    grayscale=0.2,
)

# Chen et al., "Improved baselines with momentum contrastive learning" (2020): weaker hue, jitter at times, blur.
_MOCO_V2: dict[str, Any] = _MOCO_V1 | dict(color_jitter=0.8, hue=0.1, blur=0.5)

# Grill et al., "Bootstrap your own latent" (NeurIPS 2020), table 6: two unequal views.
_BYOL: dict[str, Any] = dict(
    crop_scale=(0.08, 1.0),
    flip=0.5,
    color_jitter=0.8,
    brightness=0.4,
    contrast=0.4,
    saturation=0.2,
    hue=0.1,
    grayscale=0.2,
)
_BYOL_VIEWS = [_BYOL | dict(blur=1.0), _BYOL | dict(blur=0.1, solarize=0.2)]

PRESETS: dict[str, list[dict[str, Any]]] = {
    "simclr": [_SIMCLR, _SIMCLR],
    "moco_v1": [_MOCO_V1, _MOCO_V1],
    "moco_v2": [_MOCO_V2, _MOCO_V2],
    # Chen, Xie and He, "An empirical study of training self-supervised vision transformers" (ICCV 2021): BYOL's views.
    "moco_v3": _BYOL_VIEWS,
    "byol": _BYOL_VIEWS,
    # He et al., "Deep residual learning" (CVPR 2016), section 4.2: the supervised CIFAR recipe.
    "weak": [dict(crop_padding=4, flip=0.5)],
    # What most published linear probes and fine-tunings show the network (He et al., CVPR 2020).
    "crop": [dict(crop_scale=(0.08, 1.0), flip=0.5)],
    "eval": [{}],
    # Small gray digits: a mirrored digit is another sign, and a small crop of one may be any digit.
    "digits": [dict(crop_scale=(0.5, 1.0), color_jitter=0.8, brightness=0.4, contrast=0.4)] * 2,
}
