"""What other tools call the weights in their checkpoints: one row a tool, read from its own saving code.

To add a tool, add a row before the general ones: the prefix of its backbone's weights, the prefix of its projection
head, and something only its files have. What the weights are called below the prefix is found out by itself, see
:mod:`ssl_transfer.models.foreign.spelling`. Loads no torch: recipes are checked against this table.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

IMAGENET: dict[str, Any] = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225), "image_size": 224}
UNNORMALIZED: dict[str, Any] = {
    "mean": (0.0, 0.0, 0.0),
    "std": (1.0, 1.0, 1.0),
}  # ToTensor() is the tool's last transform

CIFAR_CONTAINERS = ("state_dict.", "model_state_dict.", "model.", "net.", "")  # of the many programs with their names


@dataclass(frozen=True)
class Format:
    """How one tool names what it saves, and what it does that its files do not say.

    ``backbone``, ``head`` and ``beside`` are prefixes of names, after one of ``containers``; the first that occurs is
    taken. A file is of this format if it has a backbone prefix, all of ``beside`` and none of ``lacks``.

    What a row knows beyond names (the head's activations, ``preprocessing``, ``adapt``) is assumed of a file whose
    names are the tool's own. Where they are ``everyday`` words, which other programs use too, it is assumed only if the
    format is named.
    """

    name: str
    backbone: tuple[str, ...] = ()
    head: tuple[str, ...] = ()  # of a perceptron with ReLU; none: only features can be had
    beside: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()
    containers: tuple[str, ...] = ("state_dict.", "model.", "")
    preprocessing: dict[str, Any] = field(default_factory=dict)  # mean, std, image_size where the tool fixes them
    adapt: str | None = None  # a function of adaptations.py, where the tool's network computes something else
    arch: tuple[str, ...] = ()  # what the file has to say of its network for ``adapt`` to be certain; none: nothing
    everyday: bool = False

    def place(self, names: Iterable[str]) -> tuple[str, str] | None:
        """The container and the backbone prefix by which ``names`` are of this format, or None."""
        names = list(names)
        for container in self.containers:
            inside = [name[len(container) :] for name in names if name.startswith(container)]
            if any(name.startswith(self.lacks) for name in inside):
                continue
            for prefix in self.backbone:
                if all(any(name.startswith(wanted) for name in inside) for wanted in (prefix, *self.beside)):
                    return container, prefix
        return None


FORMATS = (
    # facebookresearch/vissl: vissl/models/base_ssl_model.py, get_classy_state; vissl/models/trunks/resnext.py
    Format(
        "vissl",
        ("trunk._feature_blocks.", "trunk."),
        containers=("classy_state_dict.base_model.model.",),
        preprocessing=IMAGENET,
    ),
    # facebookresearch/moco-v3: moco/builder.py; main_moco.py saves {epoch, arch, state_dict, optimizer, scaler}
    Format(
        "moco-v3",
        ("base_encoder.",),
        ("base_encoder.fc.", "base_encoder.head."),
        beside=("momentum_encoder.",),
        preprocessing=IMAGENET,
        adapt="moco_v3_attention",
        arch=("vit_small", "vit_conv_small"),  # the names of vits.py; timm's go on with the size of a patch
    ),
    # facebookresearch/moco, v1 and v2: moco/builder.py; main_moco.py saves {epoch, arch, state_dict, optimizer}
    Format("moco", ("encoder_q.",), ("encoder_q.fc.",), preprocessing=IMAGENET),
    # facebookresearch/dino: main_dino.py saves {student, teacher, ..., args}; its head has GELU, so features only
    Format(
        "dino",
        ("backbone.",),
        beside=("head.mlp.",),
        containers=("teacher.", "student."),
        preprocessing=IMAGENET,
    ),
    # facebookresearch/swav: src/resnet50.py; main_swav.py saves {epoch, state_dict, optimizer}; src/multicropdataset.py
    Format(
        "swav",
        ("",),
        ("projection_head.",),
        beside=("projection_head.", "prototypes", "conv1."),
        preprocessing=IMAGENET | {"std": (0.228, 0.224, 0.225)},
    ),
    # facebookresearch/simsiam: simsiam/builder.py; main_simsiam.py saves {epoch, arch, state_dict, optimizer}
    Format(
        "simsiam",
        ("encoder.",),
        ("encoder.fc.",),
        beside=("encoder.fc.7.running_mean", "predictor."),  # its projector of three layers ends in a batch norm
        preprocessing=IMAGENET,
    ),
    # HobbitLong/SupContrast: networks/resnet_big.py; util.py, save_model, saves {opt, model, optimizer, epoch}
    Format("supcontrast", ("encoder.",), ("head.",), beside=("head.",), everyday=True),
    # vturrisi/solo-learn: solo/methods/base.py (earlier versions say encoder); a Lightning checkpoint
    Format(
        "solo-learn",
        ("backbone.", "encoder."),
        ("projector.",),
        beside=("classifier.",),
        adapt="solo_learn_padding",
        everyday=True,
    ),
    # sthalles/SimCLR: models/resnet_simclr.py; simclr.py saves {epoch, arch, state_dict, optimizer}
    Format(
        "sthalles-simclr",
        ("backbone.",),
        ("backbone.fc.",),
        beside=("backbone.fc.0.",),
        preprocessing=UNNORMALIZED,
        everyday=True,
    ),
    # Spijkervet/SimCLR: simclr/simclr.py; model.py, save_model, saves the state dict itself
    Format(
        "spijkervet-simclr",
        ("encoder.",),
        ("projector.",),
        beside=("projector.",),
        preprocessing=UNNORMALIZED,
        everyday=True,
    ),
    # lightly-ai/lightly: examples/pytorch_lightning/dino.py; the teacher is what is kept
    Format("lightly-dino", ("teacher_backbone.",), beside=("teacher_head.",)),
    # lightly-ai/lightly: examples/pytorch_lightning/{simclr,moco,...}.py and examples/pytorch/. The heads of MSN (which
    # has an anchor_backbone) and of DINO (which has a last_layer) have GELU.
    Format(
        "lightly",
        ("backbone.",),
        ("projection_head.layers.",),
        beside=("projection_head.layers.",),
        lacks=("anchor_", "projection_head.last_layer."),
        containers=("state_dict.model.", "state_dict.", "model.", ""),
    ),
    # HobbitLong/RepDistiller: train_teacher.py saves {epoch, model, best_acc, optimizer} and at the end {opt, model}
    Format("repdistiller", ("",), beside=("fc.", "conv1."), lacks=("layer4.",), containers=("model.",)),
    # akamaster/pytorch_resnet_cifar10: resnet.py; trainer.py saves {state_dict, best_prec1}
    Format(
        "akamaster",
        ("",),
        beside=("conv1.", "layer3.", "linear."),
        lacks=("layer4.",),
        containers=CIFAR_CONTAINERS,
        adapt="zeros_around",
    ),
    # D-X-Y/ResNeXt-DenseNet, in its early history, and the programs that took their CifarResNet from there
    Format(
        "resnext-densenet",
        ("",),
        beside=("conv_1_3x3.", "stage_3."),
        containers=CIFAR_CONTAINERS,
        adapt="zeros_behind",
    ),
    # Lightning modules and other programs that hold a network beside a head of their own
    Format("wrapped"),
    # A network on its own, as torchvision, timm and most programs save it
    Format("plain"),
)


def recognize(names: Iterable[str], *, everyday: bool) -> tuple[Format, str, str] | None:
    """The tool with these ``names``, its container and its backbone prefix; None if there is none.

    ``everyday`` says whether to look among the tools that use words of everyone, or among the others.
    """
    names = list(names)
    for row in FORMATS:
        if row.everyday is everyday and (place := row.place(names)):
            return row, *place
    return None


def by_name(name: str) -> Format:
    """The format called ``name``.

    Raises:
        ValueError: there is none.
    """
    for row in FORMATS:
        if row.name == name:
            return row
    known = ", ".join(["auto", *(row.name for row in FORMATS)])
    raise ValueError(f"there is no checkpoint format named {name!r}: choose one of {known}")
