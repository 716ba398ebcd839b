"""From the recipe's model to the network that is trained."""

import torch
from timm.models import get_pretrained_cfg

from ssl_transfer import config
from ssl_transfer.context import Context
from ssl_transfer.data import Images
from ssl_transfer.models import EmbeddingModel
from ssl_transfer.models.checkpoint import ModelSpec, build_model
from ssl_transfer.models.freezing import freeze_stages


def model_spec(recipe: config.Recipe, images: Images) -> ModelSpec:
    """What the recipe's model is, for images like ``images``."""
    mean, std = images.mean, images.std
    pretrained = get_pretrained_cfg(recipe.model.backbone) if recipe.model.pretrained else None
    if pretrained is not None and len(pretrained.mean) == len(mean):
        mean, std = pretrained.mean, pretrained.std
    return ModelSpec(
        backbone=recipe.model.backbone,
        stem=recipe.model.stem,
        in_chans=images.pixels.shape[1],
        image_size=recipe.data.crop_size or images.pixels.shape[-1],
        mean=recipe.model.mean or mean,
        std=recipe.model.std or std,
        drop_path=recipe.model.drop_path,
        pooling=recipe.model.pooling,
        head=recipe.task.model_head(recipe.model.embedding_dim, images),
    )


def untrained(recipe: config.Recipe, spec: ModelSpec) -> EmbeddingModel:
    """The recipe's model with the weights it starts from."""
    torch.manual_seed(recipe.seed)
    model = build_model(spec, pretrained=recipe.model.pretrained)
    if recipe.model.freeze is not None:
        freeze_stages(model.backbone, recipe.model.freeze)
    return model


def untrained_everywhere(recipe: config.Recipe, spec: ModelSpec, context: Context) -> EmbeddingModel:
    """:func:`untrained` on every process; timm's weights are downloaded by the main process alone.

    Raises:
        ValueError, UserError: there is no such backbone, or its weights cannot be had.
    """
    if recipe.model.pretrained:
        return context.on_main_process(lambda: untrained(recipe, spec))
    return untrained(recipe, spec)
