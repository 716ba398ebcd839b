"""The nearest images and the map of an embedding: against plain numpy, and what a person gets to see."""

import base64
import io
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ssl_transfer.cli import main
from ssl_transfer.embeddings import maps, neighbors
from ssl_transfer.embeddings.thumbnails import Thumbnails
from ssl_transfer.errors import UserError
from ssl_transfer.models.checkpoint import load_model, save_model


def by_hand(values: np.ndarray, query: np.ndarray, metric: str) -> np.ndarray:
    """All rows, nearest first, and how near."""
    if metric == "euclidean":
        return np.linalg.norm(values - query, axis=1)
    return -(values @ query) / np.linalg.norm(values, axis=1) / np.linalg.norm(query)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_neighbors_are_those_of_all_pairs(table, photos, metric):
    queries = neighbors.find_queries(table, ["ant/04.png", str(photos / "bee" / "09.png")])
    assert [query.row for query in queries] == [table.names.index("ant/04.png"), table.names.index("bee/09.png")]
    for found in neighbors.search(table, queries, 5, metric):
        distance = by_hand(table.values.astype(float), found.query.value.astype(float), metric)
        order = [row for row in np.argsort(distance) if row != found.query.row][:5]
        assert found.rows == order
        sign = 1 if metric == "euclidean" else -1
        np.testing.assert_allclose(found.similarity, sign * distance[order], rtol=1e-6)


def test_a_file_from_elsewhere_is_embedded_as_the_table_was(table, photos, here):
    (here / "copy.png").write_bytes((photos / "ant" / "05.png").read_bytes())
    (query,) = neighbors.find_queries(table, ["copy.png"])
    assert query.row is None
    np.testing.assert_allclose(query.value, table.values[table.names.index("ant/05.png")], rtol=1e-5, atol=1e-6)
    (found,) = neighbors.search(table, [query], 1, "cosine")
    assert table.names[found.rows[0]] == "ant/05.png"


def test_what_is_no_image_of_the_table_is_refused(table, colored, here):
    with pytest.raises(UserError, match="none.png is neither an image of these embeddings .* nor a file"):
        neighbors.find_queries(table, ["none.png"])
    Image.new("RGB", (8, 8)).save("other.png")
    model, spec = load_model(colored)
    torch.nn.init.zeros_(next(model.parameters()))
    save_model(here / "changed", model, spec)
    about = table.about | {"model": {"checkpoint": str(here / "changed")}}
    with pytest.raises(UserError, match="other weights now"):
        neighbors.find_queries(replace(table, about=about), ["other.png"])
    with pytest.raises(ValueError, match="30 neighbors cannot be had of 30 images: ask for 1 to 29"):
        neighbors.search(table, neighbors.find_queries(table, []), 30, "cosine")


def test_neighbors_are_printed_and_shown_on_a_page_that_needs_nothing_else(table, here, capsys):
    table.save("e.npz")
    replace(table, values=table.values[:, ::-1].copy() ** 3).save("other.npz")
    main("neighbors e.npz ant/04.png bee/09.png --k 3 --beside other.npz".split())
    shown = capsys.readouterr().out
    assert shown.count("ant/04.png  (ant)") >= 2 and shown.endswith("e-neighbors.html shows them\n")
    page = Path("e-neighbors.html").read_text()
    assert not re.search(r"(src|href)=\"(?!data:)", page) and "<script" not in page
    pictures = re.findall(r"data:image/jpeg;base64,([^\"]+)", page)
    assert len(pictures) == 2 * (1 + 2 * 3)  # each query, and three neighbors by each of two models
    first = Image.open(io.BytesIO(base64.b64decode(pictures[0])))
    expected = Image.fromarray(Thumbnails(table)(table.names.index("ant/04.png")))
    assert np.abs(np.asarray(first, dtype=float) - np.asarray(expected, dtype=float)).mean() < 30  # JPEG of noise
    (found,) = neighbors.search(table, neighbors.find_queries(table, ["ant/04.png"]), 3, "cosine")
    lines = shown.splitlines()
    start = lines.index("ant/04.png  (ant)")
    assert [line.split()[1] for line in lines[start + 1 : start + 4]] == [table.names[row] for row in found.rows]


def test_images_that_are_gone_are_gray_and_counted(table, here, capsys):
    moved = replace(table, about=table.about | {"images": {"folder": str(here), "image_size": 16}})
    moved.save("e.npz")
    main("neighbors e.npz ant/04.png --k 2".split())
    assert "3 images are not where they were, and gray in e-neighbors.html" in capsys.readouterr().out
    with pytest.raises(ValueError, match="do not say where their images lie"):
        Thumbnails(replace(table, about={}))


def test_a_data_sets_images_are_looked_up_by_their_number(tmp_path, here, model, digits, capsys):
    from ssl_transfer.models.checkpoint import HeadSpec, ModelSpec

    spec = ModelSpec("cifar_resnet8", "default", 1, 8, digits[0].mean, digits[0].std, head=HeadSpec("embedding", 16))
    save_model(tmp_path / "run", model, spec)
    main("embed run digits --to d.npz".split())
    main("neighbors d.npz 7 --k 2".split())
    assert f"7  ({int(digits[1].labels[7])})" in capsys.readouterr().out
    from ssl_transfer.embeddings.table import read_embeddings

    picture = Thumbnails(read_embeddings("d.npz"), size=16)(7)
    assert np.array_equal(picture[::2, ::2, 0], digits[1].pixels[7, 0].numpy())


def test_a_map_has_a_panel_a_model_and_the_same_images_in_each(table, here, capsys):
    table.save("e.npz")
    replace(table, values=np.concatenate([table.values, table.values], axis=1)).save("wide.npz")
    main("map e.npz wide.npz --method pca --points 25".split())
    shown = capsys.readouterr().out
    assert "25 of 30 images are drawn" in shown and shown.endswith("e-map.png shows the map\n")
    with Image.open("e-map.png") as picture:
        assert picture.width > 1.7 * picture.height and len(picture.convert("RGB").getcolors(2**24)) > 100
    main("map e.npz --method pca --no-thumbnails --to plain.png".split())
    with Image.open("plain.png") as plain:
        assert plain.width < picture.width


def test_projections_keep_what_is_far_apart_apart():
    generator = np.random.default_rng(0)
    centers = np.eye(3, 20) * 10
    values = np.concatenate([center + generator.normal(0, 0.1, (15, 20)) for center in centers]).astype(np.float32)
    group = np.repeat(np.arange(3), 15)
    for method in ("pca", "tsne"):
        places = maps.flat(values, method)
        assert places.shape == (45, 2) and np.array_equal(places, maps.flat(values, method))
        middle = np.stack([places[group == number].mean(axis=0) for number in range(3)])
        nearest = np.linalg.norm(places[:, None] - middle, axis=2).argmin(axis=1)
        assert np.array_equal(nearest, group), method


def test_a_turned_or_mirrored_map_is_turned_back():
    places = np.random.default_rng(0).normal(size=(20, 2))
    angle = np.array([[0.6, -0.8], [0.8, 0.6]])
    for change in (angle, angle @ np.diag([1, -1])):
        moved = maps.turned(places @ change + 5, places)
        np.testing.assert_allclose(moved, places - places.mean(axis=0), atol=1e-9)


def test_what_cannot_be_drawn_is_one_sentence(table, here, capsys, monkeypatch):
    table.save("e.npz")
    table.select(np.arange(20)).save("less.npz")
    table.select(np.arange(3)).save("few.npz")
    monkeypatch.setattr(maps, "find_spec", lambda name: None)
    for words, sentence in (
        ("map e.npz less.npz", "of different images (30 and 20"),
        ("map few.npz", "3 images are too few for a map"),
        ("map e.npz --method tsn", "method tsn must be tsne, umap or pca"),
        ("map e.npz --method umap", "needs umap-learn, which is not installed"),
        ("map none.npz", "there is no file none.npz: make it with ssl-transfer embed"),
    ):
        with pytest.raises(SystemExit) as caught:
            main(words.split())
        error = capsys.readouterr().err
        assert caught.value.code == 2 and sentence in error and error.count("\n") == 1, error
