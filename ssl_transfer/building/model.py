"""From the recipe's model to the network that is trained."""

import torch
from timm.models import get_pretrained_cfg

from ssl_transfer import config
from ssl_transfer.checkpoint import HeadSpec, ModelSpec, build_model
from ssl_transfer.data import Images
from ssl_transfer.models import EmbeddingModel
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
        head=_head(recipe, images),
    )


def _head(recipe: config.Recipe, images: Images) -> HeadSpec | None:
    task = recipe.task
    if recipe.classifies:
        if images.classes is None:
            raise ValueError(
                f"{images.name} {images.split} has no labels to learn: leave out task.labels, or choose other data"
            )
        return HeadSpec("classifier", images.classes)
    if isinstance(task, config.SimCLR):
        return HeadSpec("projection", task.projection_dim, task.hidden_dim)
    if isinstance(task, config.MoCo):
        layers = {"linear": 1, "mlp": 2}[task.head]
        return HeadSpec("projection", task.projection_dim, task.hidden_dim, num_layers=layers, batch_norm=False)
    if isinstance(task, config.MoCoV3):
        return HeadSpec("projection", task.projection_dim, task.hidden_dim, num_layers=task.projection_layers)
    return None if recipe.model.embedding_dim is None else HeadSpec("embedding", recipe.model.embedding_dim)


def untrained(recipe: config.Recipe, spec: ModelSpec) -> EmbeddingModel:
    """The recipe's model with the weights it starts from."""
    torch.manual_seed(recipe.seed)
    model = build_model(spec, pretrained=recipe.model.pretrained)
    if recipe.model.freeze is not None:
        freeze_stages(model.backbone, recipe.model.freeze)
    return model
