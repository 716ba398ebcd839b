"""A folder that ``timm.create_model("local-dir:FOLDER", pretrained=True)`` loads, and :func:`load_model` always."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models import model_entrypoint
from torch import Tensor, nn

from ssl_transfer.errors import one_line
from ssl_transfer.export.artifact import Artifact, check_outputs, run_outputs, sample_images, stand_ins
from ssl_transfer.files import with_checksum, write_json
from ssl_transfer.models import EmbeddingModel
from ssl_transfer.models.checkpoint import ModelSpec, load_model, write_tensors

# What timm knows of an architecture that holds for these weights too; the rest is of the weights it offers.
_KEPT = ("first_conv", "classifier", "fixed_input_size", "min_input_size", "pool_size")


def write_timm_folder(folder: Path, model: EmbeddingModel, spec: ModelSpec) -> Artifact:
    """Write ``model.safetensors`` under timm's names and ``config.json`` that timm and :func:`load_model` read.

    A linear head becomes timm's classifier where the network's forward pass ends in one linear layer, so that timm's
    output is the head's. Any other head goes to ``head/model.safetensors``: timm does not read it there,
    while older versions of timm fail over a second file of weights beside their own.

    Raises:
        ValueError: what was written does not give what the model gives.
    """
    spec = replace(spec, mean=_shortest(model.backbone.mean), std=_shortest(model.backbone.std))
    obstacle = _obstacle(spec)
    classifier = _classifier(model, spec) if obstacle is None else None
    weights = model.backbone.network.state_dict()
    if classifier is not None:
        weights |= _classifier_weights(model, classifier)
    elif model.head is not None:
        (folder / "head").mkdir()
        write_tensors(folder / "head" / "model.safetensors", model.head.state_dict())
    write_tensors(folder / "model.safetensors", weights)
    write_json(folder / "config.json", _config(model, spec, classifier))

    images = sample_images(spec, n=4)
    expected = run_outputs(model, images)
    check_outputs(run_outputs(load_model(folder)[0], images), expected, tolerance=1e-6)
    if obstacle is not None:
        return Artifact(
            "ssl-transfer", _our_python(model, spec), (f"timm alone cannot load this folder, since {obstacle}.",)
        )
    output = model.head.output_name if model.head is not None and classifier is not None else "features"
    with torch.no_grad():
        given = _loaded_by_timm(folder, spec)(model.backbone.prepare(images))
    check_outputs({output: given}, {output: expected[output]}, tolerance=1e-6)
    python = f"{_timm_python(output, spec)}\n# or, the same with ssl-transfer\n{_our_python(model, spec)}"
    return Artifact("timm", python, tuple(_notes(model, output)))


def _obstacle(spec: ModelSpec) -> str | None:
    """Why timm alone cannot build the network, None where it can."""
    if not model_entrypoint(spec.backbone).__module__.startswith("timm."):
        return f"{spec.backbone} is a network of ssl-transfer"
    if spec.stem != "default":
        return f"its stem was changed for small images (stem: {spec.stem})"
    return None


def _classifier(model: EmbeddingModel, spec: ModelSpec) -> str | None:
    """The name of timm's classifier if, with the head's weights in it, timm's network gives what the head gives."""
    if model.head is None or not isinstance(getattr(model.head, "linear", None), nn.Linear):
        return None
    known = _timm_config(model)
    size = {"img_size": model.backbone.input_size} if known.get("fixed_input_size") else {}
    options = {"in_chans": spec.in_chans, "num_classes": model.head.embedding_dim, **size, **_model_args(spec)}
    whole: Any = timm.create_model(_architecture(spec), **options).eval()
    layer = whole.get_classifier()
    name = next((name for name, module in whole.named_modules() if module is layer), None)
    if name is None or not isinstance(layer, nn.Linear) or layer.in_features != model.backbone.num_features:
        return None
    weights = model.backbone.network.state_dict() | _classifier_weights(model, name)
    if weights.keys() != whole.state_dict().keys():  # timm has some layers only before a classifier
        return None
    whole.load_state_dict(weights)
    images = sample_images(spec, n=2)
    with torch.no_grad():
        same = torch.equal(whole(model.backbone.prepare(images)), run_outputs(model, images)[model.head.output_name])
    return name if same else None


def _classifier_weights(model: EmbeddingModel, classifier: str) -> dict[str, Tensor]:
    assert model.head is not None
    return {f"{classifier}.{name}": value for name, value in model.head.get_submodule("linear").state_dict().items()}


def _config(model: EmbeddingModel, spec: ModelSpec, classifier: str | None) -> dict[str, Any]:
    known = _timm_config(model)
    num_classes = model.embedding_dim if classifier is not None else 0
    size = model.backbone.input_size
    pretrained_cfg = {key: known[key] for key in _KEPT if known.get(key) is not None} | {
        "input_size": (spec.in_chans, size, size),
        "mean": spec.mean,
        "std": spec.std,
        "interpolation": "bilinear",
        "crop_pct": 1.0,
        "num_classes": num_classes,
        "custom_load": False,
    }
    if known.get("min_input_size"):
        pretrained_cfg["min_input_size"] = (spec.in_chans, *known["min_input_size"][1:])
    return {
        "architecture": _architecture(spec),
        "num_classes": num_classes,
        "num_features": model.num_features,
        "model_args": _model_args(spec),
        "pretrained_cfg": pretrained_cfg,
        "ssl_transfer": with_checksum({"model": asdict(spec), "classifier": classifier}),
    }


def _loaded_by_timm(folder: Path, spec: ModelSpec) -> nn.Module:
    try:
        return timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    except Exception as error:  # timm has no error type of its own
        raise ValueError(
            f"timm cannot load its own {spec.backbone} again ({one_line(error, longest=200)}), so nothing was written: "
            "use the format torch"
        ) from error


def _timm_python(output: str, spec: ModelSpec) -> str:
    mode = "RGB" if spec.in_chans == 3 else "L"
    return (
        "import timm\nfrom PIL import Image\n\n"
        f'image = Image.open("photo.png").convert("{mode}")\n'
        'network = timm.create_model("local-dir:{location}", pretrained=True).eval()\n'
        "transform = timm.data.create_transform(**timm.data.resolve_model_data_config(network))\n"
        f"{output} = network(transform(image).unsqueeze(0))\n"
    )


def _our_python(model: EmbeddingModel, spec: ModelSpec) -> str:
    outputs = "features" if model.head is None else f"features and {model.head.output_name}"
    return (
        "from pathlib import Path\n\nimport torch\nfrom ssl_transfer.models import load_model\n\n"
        'model, spec = load_model(Path("{location}"))\n'
        f"{stand_ins(spec)}"
        f"outputs = model.eval().outputs(images)  # {outputs}\n"
    )


def _notes(model: EmbeddingModel, output: str) -> list[str]:
    size = model.backbone.input_size
    notes = [
        f"timm's network wants images of {size} x {size} px, normalized; its transform does both. The loader of "
        "ssl-transfer wants images in [0, 1] and does it itself."
    ]
    if model.head is not None and output == "features":
        notes.append(
            f"timm gives the features; the {model.head.output_name} needs head/model.safetensors, which only the "
            "loader of ssl-transfer reads."
        )
    elif model.head is not None:
        notes.append(f"timm gives the {output}; create_model(..., num_classes=0) gives the features before it.")
    return notes


def _architecture(spec: ModelSpec) -> str:
    return spec.backbone.partition(".")[0]  # without the tag of pretrained weights


def _model_args(spec: ModelSpec) -> dict[str, Any]:
    return {} if spec.pooling is None else {"global_pool": spec.pooling}


def _timm_config(model: EmbeddingModel) -> dict[str, Any]:
    network: Any = model.backbone.network
    return dict(network.pretrained_cfg)


def _shortest(values: Tensor) -> tuple[float, ...]:
    """The shortest decimals that give these float32 values again."""
    return tuple(float(str(value)) for value in values.flatten().cpu().numpy())
