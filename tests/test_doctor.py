"""The doctor finds what was done to a teacher, and finds nothing where nothing was done."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import yaml
from torch import Tensor

from ssl_transfer.cli import main
from ssl_transfer.data import Images
from ssl_transfer.doctor import examine, geometry_of
from ssl_transfer.models import Backbone, EmbeddingHead, EmbeddingModel, Preprocessing, create_backbone
from ssl_transfer.probes.batch_norm_statistics import batch_norm_mismatch

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
UNNORMALIZED = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def smooth_images(count: int = 240, size: int = 32) -> Images:
    """Blurred random fields, each class with a pattern of its own under much noise."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % 4
    patterns = torch.rand(4, 3, 4, 4, generator=generator)
    fields = patterns[labels] + 0.6 * torch.randn(count, 3, 4, 4, generator=generator)
    large = F.interpolate(fields, (size, size), mode="bicubic")
    pixels = (0.3 + 0.25 * large).clamp(0, 1).mul(255).round().to(torch.uint8)
    mean = tuple(pixels.float().div(255).mean(dim=(0, 2, 3)).tolist())
    std = tuple(pixels.float().div(255).std(dim=(0, 2, 3)).tolist())
    return Images(pixels, labels, 4, "smooth", "train", mean, std)


IMAGES = smooth_images()


def teacher(trained_with: tuple, given: tuple, *, name: str = "cifar_resnet8", head: bool = False) -> EmbeddingModel:
    """A network whose batch norms saw the images normalized one way, wrapped to normalize them another way."""
    torch.manual_seed(0)
    mean, std = given
    backbone = create_backbone(name, image_size=32, mean=mean, std=std)
    for module in backbone.network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # the average over all batches
    shift, scale = (torch.tensor(color).view(-1, 1, 1) for color in trained_with)
    with torch.no_grad():
        for batch in IMAGES.pixels.split(60):
            backbone.network.train()((batch.float() / 255 - shift) / scale)
    return EmbeddingModel(backbone, EmbeddingHead(64, embedding_dim=16) if head else None).eval()


def complaints(model: EmbeddingModel, output: str = "features", sigma: float | None = None) -> str:
    return " ".join(examine(model, output, IMAGES, 200, sigma)[1])


def test_a_teacher_as_it_was_trained_is_not_said_to_be_wrongly_normalized():
    for way in (IMAGENET, UNNORMALIZED, (IMAGES.mean, IMAGES.std)):
        assert "normalized" not in complaints(teacher(way, way))


@pytest.mark.parametrize(
    ("trained_with", "given", "better"),
    [
        (IMAGENET, UNNORMALIZED, "ImageNet's"),
        (IMAGENET, (IMAGENET[1], IMAGENET[0]), "ImageNet's"),  # mean and std in each other's place
        (UNNORMALIZED, IMAGENET, "none, mean 0 and std 1,"),
        ((IMAGES.mean, IMAGES.std), UNNORMALIZED, "the data set's"),
        (((0.5,) * 3, (0.5,) * 3), IMAGENET, "half and half"),
    ],
)
def test_a_swapped_normalization_is_found_and_the_better_one_named(trained_with, given, better):
    told = complaints(teacher(trained_with, given))
    assert "look wrongly normalized" in told and f"with {better}" in told
    assert "Set teacher.mean and teacher.std" in told


def test_without_batch_norm_the_pixels_themselves_are_judged():
    options = {"name": "vit_tiny_patch16_224", "trained_with": IMAGENET}
    told = complaints(teacher(given=((0.0,) * 3, (255.0,) * 3), **options))
    assert "look wrongly normalized: the network sees a mean of 0.00 and an sd of 0.00" in told
    assert "normalized" not in complaints(teacher(given=IMAGENET, **options))


def test_the_mismatch_is_the_divergence_of_normal_distributions():
    """Against torch's own KL divergence, on a network that is nothing but a batch norm."""
    norm = torch.nn.BatchNorm2d(3).eval()
    norm.running_mean, norm.running_var = torch.tensor([0.1, 0.5, -0.2]), torch.tensor([0.5, 1.0, 2.0])
    images = torch.rand(8, 3, 5, 5)
    found = batch_norm_mismatch(norm, images, {"own": IMAGENET})["own"]
    seen = (images - torch.tensor(IMAGENET[0]).view(-1, 1, 1)) / torch.tensor(IMAGENET[1]).view(-1, 1, 1)
    normal = torch.distributions.Normal
    by_channel = torch.distributions.kl_divergence(
        normal(seen.mean(dim=(0, 2, 3)), seen.std(dim=(0, 2, 3))), normal(norm.running_mean, norm.running_var.sqrt())
    )
    assert by_channel.max() < 10
    assert found == pytest.approx(by_channel.mean().item(), rel=1e-3)
    assert not norm._forward_pre_hooks


def test_a_collapsed_teacher_is_told():
    model = teacher(IMAGENET, IMAGENET, head=True)
    assert "collapsed" not in complaints(model, "embedding")
    model.head.linear.weight.data *= 1e-3
    model.head.linear.bias.data.fill_(1)
    assert "looks collapsed" in complaints(model, "embedding")
    model.head.linear.weight.data.zero_()
    assert "looks collapsed" in complaints(model, "embedding")


def test_features_that_are_all_close_have_the_wrong_sigma_for_a_gaussian():
    told = complaints(teacher(IMAGENET, IMAGENET), sigma=1.0)
    assert "At sigma 1 the Gaussian affinity tells every pair to be close" in told
    assert "leave out affinity and sigma" in told and "set task.sigma to about" in told
    assert "transfer output: embedding, or" in complaints(teacher(IMAGENET, IMAGENET, head=True), sigma=1.0)
    suitable = float(told.partition("task.sigma to about ")[2].partition(",")[0])
    for sigma in (suitable, None):
        assert "Gaussian" not in complaints(teacher(IMAGENET, IMAGENET), sigma=sigma)


def test_neighbors_worse_than_those_of_pixels_are_told():
    class Pooled(torch.nn.Module):
        """Knows what the pixels know."""

        def forward(self, images: Tensor) -> Tensor:
            return F.adaptive_avg_pool2d(images, 4).flatten(1)

    class Noise(torch.nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return torch.randn(len(images), 48)

    def told(network: torch.nn.Module) -> str:
        preprocessing = Preprocessing(IMAGES.mean, IMAGES.std, 32)
        return complaints(EmbeddingModel(Backbone(network, name="x", num_features=48, preprocessing=preprocessing)))

    assert "worse than those of raw pixels" not in told(Pooled())
    assert "worse than those of raw pixels" in told(Noise())


def test_the_geometry_agrees_with_pairs_one_by_one():
    x = torch.randn(12, 5, generator=torch.Generator().manual_seed(1)).double() + 1
    x[:, 2] = 0
    found = geometry_of(x, 0.7)
    pairs = [(F.normalize(x[i], dim=0), F.normalize(x[j], dim=0)) for i in range(12) for j in range(i)]
    squared = torch.stack([(a - b).square().sum() for a, b in pairs])
    assert found.median_distance == pytest.approx(squared.median().item())
    assert found.affinity == pytest.approx(torch.exp(-squared / 0.7).mean().item())
    assert found.cosine == pytest.approx(torch.stack([a @ b for a, b in pairs]).mean().item())
    unit = [F.normalize(row, dim=0) for row in x]
    away = []
    for i in range(12):
        squares = torch.stack([(unit[i] - unit[j]).square().sum() for j in range(12) if j != i])
        away.append((squares.mean() - squares.sort().values[:10].mean()) / squares.std(correction=0))
    assert found.clearness == pytest.approx(torch.stack(away).mean().item())
    assert (found.width, found.still) == (5, 1)
    assert 1 < found.rank <= 4


def test_equal_distances_have_no_nearest():
    assert geometry_of(torch.eye(8)).clearness == 0


def test_the_other_output_is_shown_beside_the_one_that_is_transferred():
    model = teacher(IMAGENET, IMAGENET, head=True)
    by_features, by_embedding = (examine(model, output, IMAGES, 200)[0] for output in ("features", "embedding"))
    for mine, other, name in ((by_features, by_embedding, "embedding"), (by_embedding, by_features, "features")):
        (beside,) = (line for line in mine if line.startswith("beside it"))
        (spread,) = (line for line in other if line.startswith("spread: "))
        (neighbors,) = (line for line in other if line.startswith("neighbors: "))
        share = neighbors.removeprefix("neighbors: ").partition(" % ")[0]
        assert beside == f"beside it, {name}: {spread.removeprefix('spread: ')}, {share} % by neighbors"
    assert not any(line.startswith("beside it") for line in examine(teacher(IMAGENET, IMAGENET), "features", IMAGES)[0])


def test_the_pairs_are_those_of_the_first_rows_whatever_their_number():
    x = torch.randn(2100, 4, generator=torch.Generator().manual_seed(1))
    x[2000:] += 100
    found, first = geometry_of(x), geometry_of(x[:2000])
    assert (found.cosine, found.median_distance, found.affinity) == pytest.approx(
        (first.cosine, first.median_distance, first.affinity)
    )
    assert found.norm > 2 * first.norm


def test_too_few_images_are_one_sentence():
    with pytest.raises(ValueError, match="2 images are too few to say anything of a teacher"):
        examine(teacher(IMAGENET, IMAGENET), "features", IMAGES, 2)


@pytest.fixture
def digits_file(tmp_path):
    """A checkpoint of a small network whose batch norm saw the digits, saved as a plain state dict."""
    from ssl_transfer.data import load_images

    images = load_images("digits", Path(), split="train", download=False)
    torch.manual_seed(0)
    backbone = create_backbone("tiny_convnet", image_size=8, in_chans=1, mean=(0.0,), std=(1.0,))
    for module in backbone.network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        backbone.network.train()((images.pixels.float() / 255 - images.mean[0]) / images.std[0])
    torch.save({"state_dict": backbone.network.state_dict()}, tmp_path / "net.pth")

    def write(**teacher: object) -> str:
        known = {"file": str(tmp_path / "net.pth"), "backbone": "tiny_convnet", "image_size": 8}
        path = tmp_path / "teacher.yaml"
        path.write_text(yaml.safe_dump({"teacher": known | teacher, "data": {"dataset": "digits"}}))
        return str(path)

    return write


def test_the_command_prints_what_it_found_and_what_is_wrong(digits_file, capsys):
    with pytest.raises(SystemExit):  # its affinities are wrong, though not its normalization
        main(["doctor", digits_file(mean=[0.3052], std=[0.3760]), "train.cpu_threads=1", "--images", "100"])
    told = capsys.readouterr().out
    for line in ("teacher: tiny_convnet of net.pth", "in the format plain", "were found", "Left over", "neighbors: "):
        assert line in told
    assert "100 training images of digits, 8 px" in told and "wrongly normalized" not in told
    with pytest.raises(SystemExit) as caught:
        main(["doctor", digits_file(mean=[0.0], std=[1.0]), "train.cpu_threads=1", "--images", "100"])
    assert caught.value.code == 1  # so that a script notices
    assert "! The images look wrongly normalized" in capsys.readouterr().out


def test_each_of_several_teachers_is_examined(digits_file, capsys):
    path = Path(digits_file(mean=[0.3052], std=[0.3760]))
    given = yaml.safe_load(path.read_text())
    wrong = given["teacher"] | {"mean": [0.0], "std": [1.0]}
    path.write_text(yaml.safe_dump(given | {"teacher": [given["teacher"], wrong]}))
    with pytest.raises(SystemExit) as left:
        main(["doctor", str(path), "train.cpu_threads=1", "--images", "50"])
    assert left.value.code == 1  # of the second
    first, second = capsys.readouterr().out.split("teacher 2: tiny_convnet of net.pth, output features")
    assert first.startswith("teacher 1: tiny_convnet of net.pth") and "wrongly normalized" not in first
    assert "! The images look wrongly normalized" in second and "50 training images of digits" in second


@pytest.mark.parametrize(
    ("teacher", "words"),
    [
        ({"backbone": "cifar_resnet8", "mean": [0.3], "std": [0.3]}, "does not fit cifar_resnet8"),
        ({"mean": [0.3, 0.3, 0.3], "std": [0.3, 0.3, 0.3]}, "of shape"),
        ({}, "does not say how its images were prepared: write mean, std"),
        ({"mean": [0.3], "std": [0.3], "output": "projection"}, "has no projection head"),
        ({"format": "mocov2"}, "did you mean 'moco'"),
        ({"backbone": None}, "file needs backbone"),
        ({"timm": "resnet18"}, "give exactly one of"),
    ],
)
def test_mistakes_are_one_sentence_of_the_command(digits_file, capsys, teacher, words):
    with pytest.raises(SystemExit) as left:
        main(["doctor", digits_file(**teacher), "train.cpu_threads=1"])
    told = capsys.readouterr().err
    assert left.value.code == 2 and words in told


def test_a_recipe_without_a_teacher_is_one_sentence(recipes, capsys):
    with pytest.raises(SystemExit):
        main(["doctor", str(recipes / "digits" / "simclr.yaml")])
    assert "has no teacher: give a recipe with task.teacher" in capsys.readouterr().err
