"""Students and teachers: timm backbones that own their preprocessing, heads, frozen and averaged copies."""

from ssl_transfer.models.backbones import Backbone, Preprocessing, create_backbone
from ssl_transfer.models.checkpoint import load_model
from ssl_transfer.models.ema import AveragedModel, MomentumEncoder
from ssl_transfer.models.embedding import EmbeddingModel, FeatureMaps, Output, WithLogits
from ssl_transfer.models.foreign.loading import load_foreign
from ssl_transfer.models.frozen import Frozen
from ssl_transfer.models.heads import ClassifierHead, EmbeddingHead, ProjectionHead
from ssl_transfer.models.pretrained import timm_pretrained, torchvision_pretrained

__all__ = [
    "AveragedModel",
    "Backbone",
    "ClassifierHead",
    "EmbeddingHead",
    "EmbeddingModel",
    "FeatureMaps",
    "Frozen",
    "MomentumEncoder",
    "Output",
    "Preprocessing",
    "ProjectionHead",
    "WithLogits",
    "create_backbone",
    "load_foreign",
    "load_model",
    "timm_pretrained",
    "torchvision_pretrained",
]
