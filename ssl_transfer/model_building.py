"""From the recipe's model to the network that is trained."""

import torch
from timm.models import get_pretrained_cfg

from ssl_transfer import config
from ssl_transfer.checkpoint import HeadSpec, ModelSpec, build_model
from ssl_transfer.data import Images
from ssl_transfer.models import EmbeddingModel


def model_spec(recipe: config.Recipe, images: Images) -> ModelSpec:
    """What the recipe's model is, for images like ``images``."""
    mean, std = images.mean, images.std
    pretrained = get_pretrained_cfg(recipe.model.backbone) if recipe.model.pretrained else None
    if pretrained is not None and len(pretrained.mean) == len(mean):
        mean, std = pretrained.mean, pretrained.std
    head = None
    if isinstance(recipe.task, config.SimCLR):
        head = HeadSpec("projection", recipe.task.projection_dim, recipe.task.hidden_dim)
    elif recipe.model.embedding_dim is not None:
        head = HeadSpec("embedding", recipe.model.embedding_dim)
    return ModelSpec(
        backbone=recipe.model.backbone,
        stem=recipe.model.stem,
        in_chans=images.pixels.shape[1],
        image_size=images.pixels.shape[-1],
        mean=recipe.model.mean or mean,
        std=recipe.model.std or std,
        drop_path=recipe.model.drop_path,
        head=head,
    )


def untrained(recipe: config.Recipe, spec: ModelSpec) -> EmbeddingModel:
    """The recipe's model with the weights it starts from."""
    torch.manual_seed(recipe.seed)
    return build_model(spec, pretrained=recipe.model.pretrained)
