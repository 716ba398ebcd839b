"""The whole model, preprocessing included, as a program that needs none of our code: ``torch.export`` or ONNX."""

import io
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ssl_transfer.arithmetic import GPU_CONVOLUTION, products_in
from ssl_transfer.errors import one_line
from ssl_transfer.export.artifact import Artifact, check_outputs, run_outputs, sample_images, stand_ins
from ssl_transfer.models import EmbeddingModel
from ssl_transfer.models.checkpoint import ModelSpec


# As in a fresh program: torch.export reads an older flag, which cannot be read once a run has set the newer ones.
@products_in("tf32", GPU_CONVOLUTION)
def write_torch_program(folder: Path, model: EmbeddingModel, spec: ModelSpec) -> Artifact:
    """Write ``model.pt2``: what ``torch.export.load`` reads, on a machine that has torch alone.

    Raises:
        ValueError: torch cannot export the network for any number of images.
    """
    path = folder / "model.pt2"
    written = io.BytesIO()  # torch aborts the process where a disk is full below its own writer
    torch.export.save(_traced(model, spec), written)
    path.write_bytes(written.getbuffer())
    with warnings.catch_warnings():  # torch 2.11 reads its own file into a buffer that it then calls read-only
        warnings.filterwarnings("ignore", message="The given buffer is not writable")
        program = torch.export.load(path).module()
    for n in (1, 5):
        images = sample_images(spec, n)
        with torch.no_grad():
            check_outputs(program(images), run_outputs(model, images), tolerance=1e-5)
    load = (
        "import torch\n\n"
        'model = torch.export.load("{location}/model.pt2").module()\n'
        f"{stand_ins(spec)}"
        "outputs = model(images)\n"
    )
    return Artifact("pytorch", load, (_sizes(model, spec),))


@products_in("tf32", GPU_CONVOLUTION)
def write_onnx(folder: Path, model: EmbeddingModel, spec: ModelSpec) -> Artifact:
    """Write ``model.onnx`` and compare it, run by onnxruntime, with the model.

    Raises:
        ValueError: onnx is not installed, or cannot express the network for any number of images.
    """
    absent = [name for name in ("onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]
    if absent:
        raise ValueError(
            f"{' and '.join(absent)} not installed: pip install -e '.[onnx]' where ssl_transfer was cloned"
        )
    import onnxruntime

    path = folder / "model.onnx"
    names = list(run_outputs(model, sample_images(spec, 1)))
    try:
        with warnings.catch_warnings():  # what torch 2.11 says of its own code
            warnings.simplefilter("ignore", FutureWarning)
            torch.onnx.export(
                _traced(model, spec),
                (),
                path,
                dynamo=True,
                input_names=["images"],
                output_names=names,
                external_data=False,
                verbose=False,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        raise _cannot("ONNX", spec, error) from error
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for n in (1, 5):
        images = sample_images(spec, n)
        given = map(torch.from_numpy, session.run(names, {"images": images.numpy()}))
        check_outputs(dict(zip(names, given, strict=True)), run_outputs(model, images), tolerance=1e-4)
    load = (
        "import onnxruntime\nimport torch\n\n"
        'session = onnxruntime.InferenceSession("{location}/model.onnx")\n'
        f"{stand_ins(spec)}"
        f'{", ".join(names)}{"," if len(names) == 1 else ""} = session.run({names}, {{"images": images.numpy()}})\n'
    )
    return Artifact("onnx", load, (_sizes(model, spec),))


class _Outputs(nn.Module):
    """All outputs of a model, by name."""

    def __init__(self, model: EmbeddingModel):
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return self.model.outputs(images)


def _traced(model: EmbeddingModel, spec: ModelSpec) -> torch.export.ExportedProgram:
    any_number: Any = {0: torch.export.Dim("n", max=2**16)}
    try:
        with torch.no_grad():
            return torch.export.export(
                _Outputs(model.eval()), (sample_images(spec, 2),), dynamic_shapes={"images": any_number}
            )
    except Exception as error:  # torch has no error type of its own here: constraints, data-dependent code, operators
        raise _cannot("torch.export", spec, error) from error


def _cannot(what: str, spec: ModelSpec, error: Exception) -> ValueError:
    reason = one_line(error, longest=200)
    return ValueError(
        f"{what} cannot express backbone {spec.backbone!r} for any number of images ({reason}): use the format timm"
    )


def _sizes(model: EmbeddingModel, spec: ModelSpec) -> str:
    size = model.backbone.input_size
    resized = "" if size == spec.image_size else f" It resizes them to {size} x {size} px and"
    return (
        f"The program wants images of {spec.image_size} x {spec.image_size} px, any number of them, in [0, 1]."
        f"{resized or ' It'} normalizes them itself."
    )
