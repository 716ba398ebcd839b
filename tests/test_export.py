"""What is exported gives what the run gives, wherever it is loaded; and nothing half-written or wrong is left."""

import json
import subprocess
import sys
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest
import timm
import torch
import yaml
from torchvision.transforms.v2.functional import normalize

from ssl_transfer import config, runs
from ssl_transfer.cli import main
from ssl_transfer.data import load_images
from ssl_transfer.errors import UserError
from ssl_transfer.export import programs, timm_folder
from ssl_transfer.export.artifact import run_outputs
from ssl_transfer.export.folder import export_run
from ssl_transfer.models.checkpoint import HeadSpec, ModelSpec, build_model, load_model, save_model
from tests.data.sources import layouts

COLORS = {"mean": (0.49139968, 0.1, 0.44653124), "std": (0.24703233, 1 / 3, 0.26158768)}
EMBEDDING, PROJECTION = HeadSpec("embedding", 5), HeadSpec("projection", 6, 7)

RESNET = ModelSpec("resnet10t", "default", 3, 32, **COLORS)
# A CNN, a mobile one with a layer behind its pooling, transformers of a size not their own, gray images, a large input.
TIMMS_OWN = {
    "resnet": RESNET,
    "resnet-embedding": replace(RESNET, head=EMBEDDING),
    "resnet-projection": replace(RESNET, head=PROJECTION),
    "resnet-gray-tagged": ModelSpec("resnet10t.c3_in1k", "default", 1, 16, (0.3,), (0.2,)),
    "mobilenet-embedding": replace(RESNET, backbone="mobilenetv3_small_050", head=EMBEDDING),
    "vit-embedding": replace(RESNET, backbone="vit_tiny_patch16_224", image_size=48, head=EMBEDDING),
    "xcit-drop-path": replace(RESNET, backbone="xcit_nano_12_p8_224", drop_path=0.1),
    "levit-embedding": replace(RESNET, backbone="levit_128s", head=EMBEDDING),
    "efficientvit-embedding": replace(RESNET, backbone="efficientvit_b0", head=EMBEDDING),
    "resnet-max-pooling": replace(RESNET, pooling="max", head=HeadSpec("classifier", 4)),
}
OURS_ALONE = {
    "cifar-stem": replace(RESNET, stem="cifar", head=EMBEDDING),
    "small-net": replace(RESNET, backbone="cifar_resnet8", head=PROJECTION),
    "small-net-features": replace(RESNET, backbone="cifar_wrn16_1"),
}
# LeViT's classifier is a batch norm and a linear layer, so the head cannot be timm's classifier.
HEAD_APART = {"levit-embedding", "resnet-projection"}


def trained(spec: ModelSpec):
    """A model whose every tensor differs from what a new one has."""
    torch.manual_seed(0)
    model = build_model(spec)
    for parameter in model.parameters():
        parameter.data.add_(0.02 * torch.randn_like(parameter))
    model.train()(torch.rand(8, spec.in_chans, spec.image_size, spec.image_size))  # batch-norm statistics
    return model.eval()


@pytest.fixture
def finished_run(tmp_path, recipes):
    """Make a finished run of the model that a specification describes."""

    def make(spec: ModelSpec = RESNET, steps: int = 10) -> Path:
        recipe = config.load(recipes / "digits" / "transfer.yaml", [f"train.runs={tmp_path / 'runs'}"])
        run, _ = runs.claim(recipe)
        save_model(run, trained(spec), spec)
        info = runs.RunInfo(
            config.identity_hash(recipe), steps, 10, 3.0, finished=steps == 10, device="cpu", versions={"torch": "2.x"}
        )
        runs.write_info(run, info)
        return run

    return make


def images_for(spec: ModelSpec, n: int = 3) -> torch.Tensor:
    return torch.rand(n, spec.in_chans, spec.image_size, spec.image_size, generator=torch.Generator().manual_seed(5))


@torch.no_grad()
def outputs_of(folder: Path, images: torch.Tensor) -> dict[str, torch.Tensor]:
    return load_model(folder)[0].outputs(images)


@pytest.mark.parametrize("name", TIMMS_OWN | OURS_ALONE)
def test_our_loader_gives_the_runs_outputs_to_the_bit(name, finished_run, tmp_path):
    spec = (TIMMS_OWN | OURS_ALONE)[name]
    run, to = finished_run(spec), tmp_path / "exported"
    export_run(run, to)
    images = images_for(spec)
    expected, given = outputs_of(run, images), outputs_of(to, images)
    assert given.keys() == expected.keys()
    for output, values in expected.items():
        assert torch.equal(given[output], values), output
    before, after = load_model(run)[0].state_dict(), load_model(to)[0].state_dict()
    assert before.keys() == after.keys()
    for key, value in before.items():
        assert torch.equal(after[key], value), key


@pytest.mark.parametrize("name", TIMMS_OWN)
def test_timm_gives_the_runs_outputs_to_the_bit_on_images_normalized_as_its_config_says(name, finished_run, tmp_path):
    spec = TIMMS_OWN[name]
    run, to = finished_run(spec), tmp_path / "exported"
    export_run(run, to)
    network = timm.create_model(f"local-dir:{to}", pretrained=True).eval()
    data = timm.data.resolve_model_data_config(network)
    assert tuple(data["input_size"]) == (spec.in_chans, spec.image_size, spec.image_size) and data["crop_pct"] == 1.0
    images = images_for(spec)
    expected = outputs_of(run, images)
    with torch.no_grad():
        given = network(normalize(images, data["mean"], data["std"]))
    head = spec.head is not None and name not in HEAD_APART
    output = {"embedding": "embedding", "classifier": "logits"}[spec.head.kind] if head else "features"
    assert torch.equal(given, expected[output])
    assert (to / "head" / "model.safetensors").exists() == (spec.head is not None and output == "features")
    if head:
        without_head = timm.create_model(f"local-dir:{to}", pretrained=True, num_classes=0).eval()
        with torch.no_grad():
            assert torch.equal(without_head(normalize(images, data["mean"], data["std"])), expected["features"])


def test_timm_loads_it_in_a_program_that_knows_nothing_of_ours(finished_run, tmp_path):
    to = tmp_path / "exported"
    export_run(finished_run(), to)
    code = (
        "import sys, timm, torch\n"
        f"network = timm.create_model('local-dir:{to}', pretrained=True).eval()\n"
        "assert network(torch.zeros(1, 3, 32, 32)).shape == (1, 512)\n"
        "assert 'ssl_transfer' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_timms_own_transform_makes_the_input_that_our_loader_makes(finished_run, tmp_path):
    from torchvision.transforms.functional import to_pil_image, to_tensor

    spec = replace(RESNET, image_size=24)
    to = tmp_path / "exported"
    export_run(finished_run(spec), to)
    model = load_model(to)[0]
    network = timm.create_model(f"local-dir:{to}", pretrained=True).eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(network))
    same_size, larger = (to_pil_image(torch.rand(3, size, size)) for size in (24, 60))
    torch.testing.assert_close(transform(same_size), model.backbone.prepare(to_tensor(same_size)[None])[0])
    # PIL rounds to whole values between its two passes of resizing; the smallest std is 0.247.
    difference = transform(larger) - model.backbone.prepare(to_tensor(larger)[None])[0]
    assert difference.abs().max() < 2 / 255 / 0.247


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # timm leaves its files open
def test_timms_validation_of_an_exported_folder_is_our_own_accuracy(finished_run, tmp_path):
    """As timm's validate.py goes: its data set of a folder, its loader, its transform and its accuracy."""
    spec = replace(RESNET, head=HeadSpec("classifier", 3))
    export_run(finished_run(spec), to := tmp_path / "exported")
    for place in range(12):
        layouts.image(tmp_path / "photos" / "val" / "abc"[place % 3] / f"{place:02d}.png", place)
    network = timm.create_model(f"local-dir:{to}", pretrained=True).eval()
    dataset = timm.data.create_dataset("", root=str(tmp_path / "photos"), split="validation")
    config_of_data = timm.data.resolve_data_config({}, model=network)
    options = {key: config_of_data[key] for key in ("input_size", "mean", "std", "interpolation", "crop_pct")}
    loader = timm.data.create_loader(dataset, batch_size=5, use_prefetcher=False, num_workers=0, **options)
    with torch.no_grad():
        logits, labels = (torch.cat(parts) for parts in zip(*((network(x), y) for x, y in loader), strict=True))
    (theirs,) = timm.utils.accuracy(logits, labels, topk=(1,))
    images = load_images("folder", tmp_path / "photos", split="val", image_size=spec.image_size)
    ours = outputs_of(to, images.pixels.float() / 255)["logits"]
    assert torch.equal(labels, images.labels)
    assert logits.std() > 0.01 and (logits - ours).abs().max() < 0.02 * ours.abs().max()
    assert theirs.item() == pytest.approx(100 * (ours.argmax(dim=1) == images.labels).float().mean().item())


@pytest.mark.parametrize("name", OURS_ALONE)
def test_what_timm_alone_cannot_load_says_so_on_export_and_in_the_card(name, finished_run, tmp_path, capsys):
    to = tmp_path / "exported"
    export_run(finished_run(OURS_ALONE[name]), to)
    sentence = "timm alone cannot load this folder, since"
    assert sentence in capsys.readouterr().out
    card = (to / "README.md").read_text()
    assert sentence in card and "load_model(" in card and "local-dir:" not in card
    assert yaml.safe_load(card.split("---\n")[1])["library_name"] == "ssl-transfer"


@pytest.mark.slow
@pytest.mark.parametrize("file_format", ["torch", "onnx"])
@pytest.mark.parametrize(
    "spec",
    [
        replace(RESNET, stem="cifar", head=PROJECTION),
        replace(RESNET, backbone="vit_tiny_patch16_224", head=EMBEDDING),
        replace(RESNET, backbone="halonet26t"),  # resizes to 256 px
    ],
    ids=["resnet", "vit", "halonet"],
)
def test_a_program_takes_any_number_of_images_and_gives_all_outputs(spec, file_format, finished_run, tmp_path):
    run, to = finished_run(spec), tmp_path / "exported"
    export_run(run, to, file_format=file_format)
    assert not (to / "model.safetensors").exists()
    for n in (1, 2, 7):
        images = images_for(spec, n)
        if file_format == "torch":
            given = torch.export.load(to / "model.pt2").module()(images)
        else:
            import onnxruntime

            session = onnxruntime.InferenceSession(to / "model.onnx", providers=["CPUExecutionProvider"])
            names = [output.name for output in session.get_outputs()]
            values = session.run(None, {"images": images.numpy()})
            given = dict(zip(names, map(torch.from_numpy, values), strict=True))
        expected = outputs_of(run, images)
        assert given.keys() == expected.keys()
        for name, values in expected.items():
            torch.testing.assert_close(given[name], values, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_a_torch_program_runs_where_ours_and_timm_are_not_imported(finished_run, tmp_path):
    to = tmp_path / "exported"
    export_run(finished_run(), to, file_format="torch")
    code = (
        "import sys, torch\n"
        f"model = torch.export.load('{to / 'model.pt2'}').module()\n"
        "assert model(torch.zeros(3, 3, 32, 32))['features'].shape == (3, 512)\n"
        "assert not {'ssl_transfer', 'timm'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("file_format", ["torch", "onnx"])
def test_a_program_can_be_written_after_a_run_that_asked_for_exact_convolutions(file_format, finished_run, tmp_path):
    conv = torch.backends.cudnn.conv
    before = conv.fp32_precision
    conv.fp32_precision = "ieee"  # what a run with train.precision=full leaves behind
    try:
        export_run(finished_run(RESNET), tmp_path / "exported", file_format=file_format)
        assert conv.fp32_precision == "ieee"
    finally:
        conv.fp32_precision = before


@pytest.mark.parametrize("file_format", ["timm", "torch", "onnx"])
def test_an_export_that_does_not_give_the_runs_outputs_is_not_left(file_format, finished_run, tmp_path, monkeypatch):
    run = finished_run(RESNET)
    calls = count(1)

    def drifting(model, images):
        """Other outputs at each call than were written, or asked for before."""
        drift = 0.01 * next(calls)
        return {name: values + drift for name, values in run_outputs(model, images).items()}

    for writer in (programs, timm_folder):
        monkeypatch.setattr(writer, "run_outputs", drifting)
    with pytest.raises(UserError, match="features differ from the run's by .*, so nothing was written"):
        export_run(run, tmp_path / "exported", file_format=file_format)
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


def test_the_card_says_what_was_done_and_how_well(finished_run, tmp_path):
    run, to = finished_run(replace(RESNET, head=EMBEDDING)), tmp_path / "exported"
    score = {"model": "student (resnet10t)", "metric": "kNN 20", "value": 0.875, "sd": None, "n": None}
    few = {"model": "student (resnet10t)", "metric": "10/class", "value": 0.5, "sd": 0.0125, "n": 5}
    protocol = {"probe": "knn", "k": 20, "n_test": 359}
    content = {"date": "2026-01-02", "dataset": "digits", "scores": [score | {"protocol": protocol}]}
    content["scores"] += [
        few | {"protocol": {"probe": "few_shot"}},
        score | {"model": "untrained", "protocol": protocol},
    ]
    (run / "scores.json").write_text(json.dumps(content))
    export_run(run, to)
    card = (to / "README.md").read_text()
    front_matter = yaml.safe_load(card.split("---\n")[1])
    assert front_matter["library_name"] == "timm" and "license" not in front_matter
    assert {"image-feature-extraction", "relaxed_contrastive", "digits"} <= set(front_matter["tags"])
    for part in (
        "`resnet10t` trained by `relaxed_contrastive` from the teacher tiny_convnet (its features) on `digits`",
        'timm.create_model("local-dir:path/to/this/folder", pretrained=True)',
        "features (512), embedding (5)",
        "| student (resnet10t) | 87.5 | 50.0 ± 1.2 (n=5) |",
        "| untrained | 87.5 |  |",
        "kNN 20: The 20 training images of largest cosine",
        "torch: 2.x",
        "The license is for whoever publishes this model to choose",
    ):
        assert part in card, part
    assert config.load(to / "recipe.yaml") == runs.read_recipe(run)
    assert (to / "recipe.yaml").read_text() in card


def test_a_run_without_scores_has_a_card_that_says_so(finished_run, tmp_path):
    export_run(finished_run(), tmp_path / "exported")
    assert "## Scores\n\nNone were taken." in (tmp_path / "exported" / "README.md").read_text()


def card_python(to: Path) -> str:
    return (
        (to / "README.md").read_text().split("```python\n")[1].split("```")[0].replace("path/to/this/folder", str(to))
    )


def test_the_cards_python_runs_as_it_is(finished_run, tmp_path, monkeypatch):
    from PIL import Image

    to = tmp_path / "exported"
    export_run(finished_run(replace(RESNET, head=EMBEDDING)), to)
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (40, 40)).save("photo.png")
    names: dict = {}
    exec(card_python(to), names)  # noqa: S102
    assert names["embedding"].shape == (1, 5) and names["outputs"]["features"].shape == (2, 512)


@pytest.mark.slow
@pytest.mark.parametrize("file_format", ["torch", "onnx"])
def test_the_python_in_the_card_of_a_program_runs_as_it_is(file_format, finished_run, tmp_path):
    to = tmp_path / "exported"
    export_run(finished_run(replace(RESNET, head=EMBEDDING)), to, file_format=file_format)
    names: dict = {}
    exec(card_python(to), names)  # noqa: S102
    features = names["outputs"]["features"] if file_format == "torch" else names["features"]
    assert features.shape == (2, 512)


def test_the_card_explains_the_students_scores_and_not_its_teachers(finished_run, tmp_path):
    run = finished_run()
    scores = [
        {"model": f"{role} (resnet18)", "role": role, "metric": "kNN 20", "value": value, "sd": None, "n": None}
        | {"protocol": {"probe": "knn", "k": 20, "layer": "features", "width": width}}
        for role, value, width in (("teacher", 0.5, 128), ("student", 0.4, 64))
    ]
    content = {"date": "2026-01-02", "dataset": "digits", "scores": scores}
    (run / "scores.json").write_text(json.dumps(content))
    export_run(run, tmp_path / "exported")
    card = (tmp_path / "exported" / "README.md").read_text()
    assert "Looked at: the features of student (resnet18), 64 numbers an image." in card
    assert "128 numbers" not in card and "decide its class" in card


def test_an_unfinished_run_is_refused(finished_run, tmp_path):
    with pytest.raises(UserError, match="is not finished .at step 4 of 10.: run its recipe to the end, then export"):
        export_run(finished_run(steps=4), tmp_path / "exported")


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(UserError, match="is no run folder"):
        export_run(tmp_path, tmp_path / "exported")


def test_a_folder_with_something_in_it_is_refused_and_left_alone(finished_run, tmp_path):
    run, to = finished_run(), tmp_path / "exported"
    to.mkdir()
    export_run(run, to)  # an empty one is filled
    before = {path: path.read_bytes() for path in to.iterdir()}
    with pytest.raises(UserError, match="exported exists and is not empty: choose another folder with --to"):
        export_run(run, to)
    assert {path: path.read_bytes() for path in to.iterdir()} == before


def test_an_unknown_format_is_one_sentence_with_the_nearest(finished_run, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["export", str(finished_run()), "--to", str(tmp_path / "exported"), "--format", "onx"])
    assert stopped.value.code == 2
    assert capsys.readouterr().err == (
        "ssl-transfer: there is no export format 'onx'; did you mean 'onnx'? (allowed: timm, torch, onnx)\n"
    )


def test_the_command_line_exports_and_says_where(finished_run, tmp_path, capsys):
    main(["export", str(finished_run()), "--to", str(tmp_path / "new" / "exported")])
    assert "exported holds the model, its recipe and its model card" in capsys.readouterr().out
    assert {path.name for path in (tmp_path / "new" / "exported").iterdir()} == {
        "README.md",
        "config.json",
        "model.safetensors",
        "recipe.yaml",
    }


def test_a_missing_head_file_is_named(finished_run, tmp_path):
    to = tmp_path / "exported"
    export_run(finished_run(replace(RESNET, head=PROJECTION)), to)
    (to / "head" / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="head/model.safetensors cannot be read"):
        load_model(to)


class FakeHub:
    """Stands for huggingface_hub.HfApi and remembers what it was asked."""

    calls: list[tuple] = []
    refuses: Exception | None = None

    def __init__(self, **options):
        pass

    def create_repo(self, name, **options):
        if self.refuses is not None:
            raise self.refuses
        self.calls.append(("create", name, options))
        return type("Url", (str,), {"repo_id": name})(f"https://hub/{name}")

    def upload_folder(self, *, repo_id, folder_path, **options):
        self.calls.append(("upload", repo_id, {path.name for path in Path(folder_path).iterdir()}))


@pytest.fixture
def hub(monkeypatch):
    monkeypatch.setattr("huggingface_hub.HfApi", FakeHub)
    monkeypatch.setattr(FakeHub, "calls", [])
    monkeypatch.setattr(FakeHub, "refuses", None)
    return FakeHub


def test_nothing_is_uploaded_unless_asked(finished_run, tmp_path, hub):
    export_run(finished_run(), tmp_path / "exported")
    assert hub.calls == []


def test_the_whole_folder_is_uploaded_to_a_private_repository(finished_run, tmp_path, hub, capsys):
    to = tmp_path / "exported"
    export_run(finished_run(), to, push_to_hub="me/my-student")
    (create, upload) = hub.calls
    assert create == ("create", "me/my-student", {"private": True, "exist_ok": True})
    assert upload == ("upload", "me/my-student", {path.name for path in to.iterdir()})
    assert "Uploaded to https://hub/me/my-student" in capsys.readouterr().out
    card = (to / "README.md").read_text()
    assert 'timm.create_model("hf-hub:me/my-student", pretrained=True)' in card
    assert "load_model(Path(folder))" in card and "path/to" not in card


def test_a_refusal_of_the_hub_is_one_sentence_and_the_folder_stays(finished_run, tmp_path, hub, monkeypatch):
    monkeypatch.setattr(hub, "refuses", OSError("401 Unauthorized\nlog in"))
    with pytest.raises(
        UserError, match=r"is written, but could not be uploaded as me/x .401 Unauthorized log in.: log in"
    ):
        export_run(finished_run(), tmp_path / "exported", push_to_hub="me/x")
    assert (tmp_path / "exported" / "README.md").is_file()


def test_a_name_that_the_hub_would_refuse_is_refused_before_any_work(finished_run, tmp_path, hub):
    with pytest.raises(UserError, match="'me/my/student' is not a name on the Hub: write owner/model"):
        export_run(finished_run(), tmp_path / "exported", push_to_hub="me/my/student")
    assert not (tmp_path / "exported").exists() and hub.calls == []


@pytest.mark.slow
def test_a_real_run_is_exported_and_is_a_teacher(tmp_path, recipes):
    from ssl_transfer import recipe as program

    place = [f"train.runs={tmp_path / 'runs'}", "train.steps=2", "score=[]"]
    run = program.run(config.load(recipes / "digits" / "simclr.yaml", place))
    main(["export", str(run), "--to", str(tmp_path / "exported")])
    images = torch.rand(4, 1, 8, 8)
    expected, given = outputs_of(run, images), outputs_of(tmp_path / "exported", images)
    assert given.keys() == {"features", "projection"}
    assert all(torch.equal(given[name], expected[name]) for name in expected)
    teacher = f"task.teacher={{checkpoint: {tmp_path / 'exported'}, output: projection}}"
    student = program.run(config.load(recipes / "digits" / "transfer.yaml", [*place, teacher]))
    assert runs.read_info(student).finished
