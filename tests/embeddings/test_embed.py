"""Embeddings of folders, data sets and pixels: the values, the names beside them, and what is left after a stop."""

import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch

from ssl_transfer.cli import main
from ssl_transfer.data import load_images
from ssl_transfer.embeddings import computing
from ssl_transfer.embeddings.embedder import load
from ssl_transfer.embeddings.table import Embeddings, read_embeddings
from ssl_transfer.features.extraction import compute_features
from ssl_transfer.models.checkpoint import HeadSpec, ModelSpec, save_model
from tests.processes import find_free_port

HALF = (0.5, 0.5, 0.5)


def by_hand(folder: Path, photos: Path, names: list[str]) -> torch.Tensor:
    """Features image by image, from the files that the table names."""
    model = load(folder)
    rows = []
    for name in names:
        pixels = load_images("folder", photos, split=".", image_size=16, on_error="skip")
        row = list(pixels.files).index(name)
        with torch.no_grad():
            rows.append(model.features(pixels.pixels[row : row + 1].float() / 255))
    return torch.cat(rows)


@pytest.mark.parametrize("suffix", ["npz", "parquet"])
def test_a_folder_becomes_a_row_a_file_with_its_name_and_class(colored, photos, here, capsys, suffix):
    main(["embed", str(colored), str(photos), "--to", f"e.{suffix}"])
    shown = capsys.readouterr().out
    assert f"e.{suffix} holds 30 embeddings, 64 wide, of photos" in shown
    assert "1 images cannot be decoded and are left out: bee/cut.png" in shown
    assert "files ending in .txt: 1 (note.txt)" in shown
    table = read_embeddings(f"e.{suffix}")
    assert table.values.dtype == np.float32 and table.values.shape == (30, 64)
    assert sorted(table.files) == sorted(str(path.relative_to(photos)) for path in photos.rglob("[0-9]*.png"))
    assert table.classes == [name.split("/")[0] for name in table.files]
    assert table.about["images"]["folder"] == str(photos) and list(table.about["left_out"]) == ["bee/cut.png"]
    assert not list(here.glob("*.parts"))
    np.testing.assert_allclose(table.values, by_hand(colored, photos, table.names), rtol=1e-5, atol=1e-6)


def test_both_kinds_of_file_hold_the_same(colored, photos, here):
    table = load(colored).embed(photos, progress=False)
    assert len(table) == 30 and np.asarray(table).shape == (30, 64)
    for name in ("a.npz", "b.parquet"):
        table.save(name)
        read = read_embeddings(name)
        for column in ("values", "rows", "files", "labels"):
            assert np.array_equal(getattr(read, column), getattr(table, column)), column
        assert read.class_names == ("ant", "bee") and read.about == table.about
    with np.load("a.npz", allow_pickle=False) as plain:  # what anybody reads without this package
        assert set(plain) == {"values", "rows", "files", "labels", "class_names", "about"}
        assert json.loads(str(plain["about"]))["layer"] == "features"
    some = table.select(np.array([4, 1]))
    assert some.names == [table.names[4], table.names[1]] and np.array_equal(some.values, table.values[[4, 1]])


def test_values_of_an_npz_file_are_mapped_and_checked(here):
    values = np.random.default_rng(0).standard_normal((300, 7)).astype(np.float32)
    table = Embeddings(values, np.arange(300), about={"model": {}})
    table.save("e.npz")
    read = read_embeddings("e.npz").values
    assert isinstance(read, np.memmap) and read.flags.aligned and np.array_equal(read, values)
    read[0] = 0  # of this copy alone
    assert np.array_equal(read_embeddings("e.npz").values, values)
    with np.load("e.npz") as held:
        arrays = dict(held)
    for write, name in ((np.savez, "plain.npz"), (np.savez_compressed, "compressed.npz")):  # by another tool
        write(name, **arrays)
        assert np.array_equal(read_embeddings(name).values, values)
    content = bytearray(Path("e.npz").read_bytes())
    content[len(content) // 2] ^= 1
    Path("e.npz").write_bytes(content)
    with pytest.raises(ValueError, match="does not hold embeddings .*: make it again"):
        read_embeddings("e.npz")


def test_a_data_set_is_embedded_as_it_is_scored(tmp_path, model, digits):
    spec = ModelSpec("cifar_resnet8", "default", 1, 8, digits[0].mean, digits[0].std, head=HeadSpec("embedding", 16))
    save_model(tmp_path, model, spec)
    embedder = load(tmp_path)
    assert not embedder.training and embedder.backbone.name == "cifar_resnet8"
    table = embedder.embed("digits", progress=False)
    assert table.files is None and table.names[:2] == ["image 0", "image 1"]
    assert np.array_equal(table.labels, digits[1].labels)
    assert np.array_equal(table.values, compute_features(model, digits[1]).numpy())
    output = embedder.embed(digits[1].subset(torch.arange(4)), layer="output", progress=False)
    with torch.no_grad():
        expected = model(digits[1].pixels[:4].float() / 255)
    np.testing.assert_allclose(output.values, expected, rtol=1e-5, atol=1e-6)


def test_pixels_in_memory_are_taken_or_refused_in_one_sentence(colored):
    embedder = load(str(colored))
    pixels = np.random.default_rng(0).integers(0, 256, (6, 16, 16, 3), dtype=np.uint8)
    expected = embedder.embed(pixels, progress=False).values
    for same in (
        torch.from_numpy(pixels).permute(0, 3, 1, 2),
        torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255,
        pixels / 255,
    ):
        assert np.array_equal(embedder.embed(same, progress=False).values, expected)
    for wrong, words in (
        (pixels[0], r"shape \(16, 16, 3\) are no images: give \(n, height, width, channels\)"),
        (torch.zeros(2, 16, 16, 3), r"shape \(2, 16, 16, 3\) are no images: give \(n, channels, height, width\)"),
        (pixels / 1.0, "pixels of 0 to 255 are no images: give bytes, or floats in"),
        (pixels.astype(np.int64), "int64 are no images"),
        ([], "name at least one file"),
    ):
        with pytest.raises(ValueError, match=words):
            embedder.embed(wrong, progress=False)


def test_single_files_are_embedded_by_the_names_given(colored, photos, monkeypatch):
    monkeypatch.chdir(photos)
    whole = load(colored).embed(photos, progress=False)
    some = load(colored).embed(["bee/00.png", photos / "ant" / "01.png"], progress=False)
    assert some.names == ["bee/00.png", str(photos / "ant" / "01.png")] and some.labels is None
    rows = [whole.names.index("bee/00.png"), whole.names.index("ant/01.png")]
    np.testing.assert_allclose(some.values, whole.values[rows], rtol=1e-5, atol=1e-6)
    with pytest.raises(FileNotFoundError, match="no image file bee/none.png"):
        load(colored).embed(["bee/none.png"], progress=False)


def test_a_program_that_was_stopped_goes_on_from_the_parts_that_are_there(colored, photos, here, monkeypatch, capsys):
    monkeypatch.setattr(computing, "ROWS", 8)
    embedded, real = [], computing.extract_features

    def extract(network, pixels, **options):
        if len(embedded) == 2:
            raise KeyboardInterrupt
        embedded.append(len(pixels))
        return real(network, pixels, **options)

    monkeypatch.setattr(computing, "extract_features", extract)
    with pytest.raises(SystemExit) as caught:
        main(["embed", str(colored), str(photos), "--to", "e.npz"])
    assert caught.value.code == 130 and "the same command goes on from there" in capsys.readouterr().err
    assert len(list(here.glob("e.npz.parts/*/*.safetensors"))) == 2 and not Path("e.npz").exists()
    monkeypatch.setattr(computing, "extract_features", lambda *a, **o: embedded.append(len(a[1])) or real(*a, **o))
    main(["embed", str(colored), str(photos), "--to", "e.npz"])
    assert "2 of 4 parts are there already" in capsys.readouterr().out
    assert sum(embedded) == 30 and not list(here.glob("*.parts"))
    np.testing.assert_allclose(
        read_embeddings("e.npz").values, load(colored).embed(photos, progress=False).values, rtol=1e-5, atol=1e-6
    )


def test_nothing_is_overwritten_and_nothing_is_computed_twice(colored, photos, here, capsys, monkeypatch):
    command = ["embed", str(colored), str(photos), "--to", "e.npz"]
    main(command)
    capsys.readouterr()
    monkeypatch.setattr(computing, "extract_features", None)
    main(command)
    assert capsys.readouterr().out == "e.npz holds these embeddings already\n"
    with pytest.raises(SystemExit):
        main([*command, "--layer", "output"])
    assert "e.npz exists and holds something else" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words, sentence",
    [
        ("none photos --to e.npz", "there is no folder or file none: name a run"),
        ("colored none --to e.npz", "there is no folder or file none, and no data set"),
        ("colored photos --to e.csv", "e.csv must end in .npz or .parquet"),
        ("colored photos --to e.npz --layer layer9", "has no layer 'layer9'"),
        ("colored photos --to e.npz --labels x", "labels x must be auto, folders or none"),
        ("colored photos --to e.npz --backbone resnet18", "backbone cannot be given with checkpoint"),
        ("colored broken --to e.npz", "no image of broken can be decoded: cut.png ("),
    ],
)
def test_a_mistake_is_one_sentence_and_leaves_nothing(colored, photos, here, capsys, words, sentence):
    Path("broken").mkdir()
    Path("broken/cut.png").write_bytes((photos / "bee" / "cut.png").read_bytes())
    Path("colored").symlink_to(colored)
    Path("photos").symlink_to(photos)
    with pytest.raises(SystemExit) as caught:
        main(["embed", *words.split()])
    error = capsys.readouterr().err
    assert caught.value.code == 2 and sentence in error and error.count("\n") == 1
    assert {path.name for path in here.iterdir()} - {"e.npz.parts"} == {"broken", "colored", "photos"}


def test_a_file_that_is_no_table_of_embeddings_is_refused(here):
    np.savez("other.npz", x=np.zeros(3))
    Path("text.npz").write_text("text")
    for name in ("other.npz", "text.npz"):
        with pytest.raises(ValueError, match=f"^{name} does not hold embeddings"):
            read_embeddings(name)
    with pytest.raises(FileNotFoundError, match="make it with ssl-transfer embed"):
        read_embeddings("none.npz")
    with pytest.raises(ValueError, match="must end in"):
        Embeddings(np.zeros((2, 3), np.float32), np.arange(2)).save("e.csv")


def test_published_networks_and_checkpoints_are_loaded_by_the_same_word(tmp_path, colored):
    network = timm.create_model("resnet10t", num_classes=0)
    torch.save(network.state_dict(), tmp_path / "x.pth")
    loaded = load(tmp_path / "x.pth", backbone="resnet10t", mean=HALF, std=HALF, image_size=32)
    assert loaded.source["file"] == str(tmp_path / "x.pth") and loaded.report
    assert loaded(torch.rand(2, 3, 20, 20)).shape == (2, 512)
    assert load(colored).device.type in ("cpu", "cuda")


def embed_on_a_process(rank: int, world: int, port: int, model: str, photos: str, to: str) -> None:
    import os

    torch.set_num_threads(1)
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world}
    os.environ |= {key: str(value) for key, value in {**place, "MASTER_ADDR": "localhost", "MASTER_PORT": port}.items()}
    computing.ROWS = 8
    main(["embed", model, photos, "--to", to])


@pytest.mark.slow
def test_several_processes_write_what_one_writes(colored, photos, tmp_path):
    torch.multiprocessing.spawn(
        embed_on_a_process, (2, find_free_port(), str(colored), str(photos), str(tmp_path / "e.npz")), nprocs=2
    )
    table, expected = read_embeddings(tmp_path / "e.npz"), load(colored).embed(photos, progress=False)
    assert table.names == expected.names and table.about["left_out"] == expected.about["left_out"]
    np.testing.assert_allclose(table.values, expected.values, rtol=1e-5, atol=1e-6)
    assert [path.name for path in tmp_path.iterdir()] == ["e.npz"]


def test_the_public_names_are_found_when_they_are_asked_for():
    import ssl_transfer

    assert ssl_transfer.load is load and ssl_transfer.read_embeddings is read_embeddings
    manual = (Path(__file__).parents[2] / "docs" / "use.md").read_text()
    for name in set(dir(ssl_transfer)) - {"__version__"}:
        assert getattr(ssl_transfer, name).__doc__ and f"| `{name}` |" in manual, name
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        ssl_transfer.lod  # noqa: B018
