"""Which timm families can be students, as the table in docs/backbones.md: the smallest network of each, built and run.

python benchmarks/backbones.py > docs/backbones.md      # a minute or two
"""

import torch
from timm.models import model_entrypoint

from ssl_transfer.models import Backbone, create_backbone
from ssl_transfer.models.freezing import stage_count

FAMILIES = {
    "Convolutional": """
        resnet10t seresnet18 resnext26ts skresnet18 resnest14d resnetv2_18 densenet121 dla46_c ese_vovnet19b_slim_dw
        cs3darknet_s cspnext_tiny dpn48b hrnet_w18_small regnetx_002 gernet_s nf_regnet_b0 repvgg_a0 convnext_atto
        inception_next_atto mambaout_femto hgnetv2_b0 convmixer_768_32 csatv2 cifar_resnet8 cifar_wrn16_2
    """,
    "Mobile": """
        mobilenetv1_100 mobilenetv2_035 mobilenetv3_small_050 mobilenetv4_conv_small_035 mobileone_s0 efficientnet_lite0
        mnasnet_small fbnetc_100 hardcorenas_a lcnet_035 lcnetv2_small tinynet_e ghostnet_050 repghostnet_050
        rexnet_100 starnet_s050 fasternet_t0 repvit_m0_9
    """,
    "Hybrid": """
        mobilevit_xxs mobilevitv2_050 edgenext_xx_small fastvit_t8 efficientvit_b0 efficientvit_m0 efficientformerv2_s0
        shvit_s1 swiftformer_xs iformer_t cpubone_b0_bfrobust lowformer_b0 levit_128s coat_lite_tiny
        coatnet_pico_rw_224 maxvit_pico_rw_256 poolformer_s12 caformer_s18 tiny_vit_5m_224 visformer_tiny
        vit_tiny_r_s16_p8_224 vitamin_small_224 lambda_resnet26t halonet26t
    """,
    "Transformer": """
        vit_tiny_patch16_224 deit_tiny_patch16_224 eva02_tiny_patch14_224 vit_relpos_small_patch16_224
        swin_tiny_patch4_window7_224 swinv2_tiny_window8_256 swinv2_cr_tiny_ns_224 pvt_v2_b0 twins_svt_small mvitv2_tiny
        xcit_nano_12_p8_224 cait_xxs24_224 pit_ti_224 tnt_s_patch16_224 convit_tiny volo_d1_224 nest_tiny gcvit_xxtiny
        focalnet_tiny_srf davit_tiny hiera_tiny_224
    """,
    "Mixer": "mixer_s32_224 resmlp_12_224 gmlp_ti16_224 sequencer2d_s",
}
REFUSED = "inception_v3 efficientformer_l1 crossvit_tiny_240"
LARGER = (96, 128, 160, 192, 224, 240, 256)

_PAGE = """\
# Backbones

Any network of timm can be the student: `model.backbone` is its name. This table is the smallest network of each family,
built by `create_backbone` and run once; `tests/models/test_swap.py` builds each row again, compares it with what stands
here, and trains it for two steps. The page is written by

    python benchmarks/backbones.py > docs/backbones.md

* **32 px, 64 px**: the size that the network works at for such images. Where it is larger, images are resized to it,
  which costs time and tells the network nothing new; `-` where it refuses them. A network works at the smallest size
  that it sees whole: patches of 14 px leave out a quarter of 32 px, so it gets 42. Transformers are built for the size
  of the images, so they see 32 px as few patches: choose a small patch size, or larger images.
* **weights**: millions, without classifier.
* **cifar**: whether there is `stem: cifar`, which lets the network see small images at full resolution.
* **maps**: whether it gives feature maps, which `fitnet`, `attention_transfer` and `vid` compare; with a patch size of
  16 they are 2 x 2 for images of 32 px.
* **stages**: what `model.freeze` counts; `-` where timm does not divide the network.

{table}

These networks refuse images of 32 and 64 px, with one sentence. Beside each is the smallest size that it takes of
{sizes}:
{refused}. The family efficientvim has weights that its features do not use, so several processes cannot train it.

## Pretrained weights

`model.pretrained: true` starts from the weights that timm has for the name; `backbone: resnet18.a1_in1k` says which.
What becomes of them (`tests/models/test_pretrained.py`):

* **`embedding_dim`**: the head is new, the classifier of the weights is left out.
* **`stem: cifar`**: convolutions of 3x3 and 1x1 keep their weights and lose their stride; larger ones, such as the
  7x7 of a ResNet, are replaced by new 3x3 ones. Everything behind the stem keeps its weights.
* **images of one or more than three channels**: timm adapts the first convolution: for gray images its weights are
  summed over the colors, for more channels they are repeated and scaled. The mean and standard deviation are then those
  of the data, since those of the weights are for three channels; otherwise those of the weights are used. `model.mean`
  and `model.std` win over both.
* **images of another size**: position embeddings are interpolated by timm, to the size in the table above.

`model.freeze: N` keeps the stem and the first N stages as they are: no gradient, no weight decay, no optimizer state,
batch norms in eval mode. It wants `pretrained: true` and `stem: default`, since freezing random weights helps nobody.

## In Python

`from ssl_transfer.models import ...`; docs/teachers.md has the names for teachers.

* `create_backbone`: the timm network of a name, without its classifier, as a `Backbone`.
* `Backbone`: pooled features, or feature maps, of images in [0, 1]; owns its `Preprocessing`.
* `Preprocessing`: mean, standard deviation and input size.
* `EmbeddingModel`: a backbone with a head or without; gives features, embeddings, or all outputs by name.
* `ProjectionHead`: the perceptron of SimCLR and MoCo.
* `EmbeddingHead`: one linear layer, for metric learning and transfer.
* `ClassifierHead`: one linear layer, to logits.
* `Output`: one output of a model as a module.
* `WithLogits`: one output of a model and its logits in one pass.
* `FeatureMaps`: the feature maps of a model and its embedding in one pass.
* `AveragedModel`: the exponential moving average of a model, to score.
* `MomentumEncoder`: a copy that trails behind a model, to contrast it with.
"""


def main() -> None:
    """Print the page."""
    torch.set_num_threads(1)  # two images: more threads only wait for each other
    rows = [row(name, kind) for kind, names in FAMILIES.items() for name in names.split()]
    header = ["family", "smallest network", "kind", "32 px", "64 px", "weights", "cifar", "maps", "stages"]
    lines = [header, ["---"] * 3 + ["---:"] * 3 + ["---"] * 2 + ["---:"], *rows]
    refused = (f"`{name}` {smallest_size(name)} px" for name in REFUSED.split())
    sizes = ", ".join(map(str, LARGER))
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    print(_PAGE.format(table=table, sizes=sizes, refused=", ".join(refused)), end="")


def row(name: str, kind: str) -> list[str]:
    """What the table says of one network."""
    built = {size: build(name, size) for size in (32, 64)}
    backbone = next(backbone for backbone in built.values() if backbone is not None)
    sizes = ["-" if backbone is None else str(backbone.input_size) for backbone in built.values()]
    millions = sum(weight.numel() for weight in backbone.parameters()) / 1e6
    home, _, family = model_entrypoint(name).__module__.rpartition(".")
    family = family if home.startswith("timm.") else "ours"
    stem = yes(build(name, 64, "cifar"))
    return [family, f"`{name}`", kind, *sizes, f"{millions:.1f}", stem, yes(gives_maps(backbone)), stages(backbone)]


def build(name: str, size: int, stem: str = "default") -> Backbone | None:
    """The backbone for images of ``size`` px, None where it refuses them."""
    try:
        return create_backbone(name, stem=stem, image_size=size, mean=(0.5,) * 3, std=(0.25,) * 3)
    except ValueError:
        return None


def gives_maps(backbone: Backbone) -> bool:
    """Whether a loss can compare the backbone's feature maps."""
    try:
        return bool(backbone.eval().feature_maps(torch.zeros(2, 3, backbone.input_size, backbone.input_size)))
    except ValueError:
        return False


def stages(backbone: Backbone) -> str:
    """How many stages can be frozen."""
    try:
        return str(stage_count(backbone))
    except ValueError:
        return "-"


def smallest_size(name: str) -> int:
    """The smallest size in pixels that a network takes."""
    return next(size for size in LARGER if build(name, size) is not None)


def yes(value: object) -> str:
    """A cell of the table."""
    return "yes" if value else "no"


if __name__ == "__main__":
    main()
