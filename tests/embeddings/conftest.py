import numpy as np
import pytest
import torch
from PIL import Image

from ssl_transfer.models.checkpoint import HeadSpec, ModelSpec, build_model, save_model

HALF = (0.5, 0.5, 0.5)


@pytest.fixture(scope="session")
def colored(tmp_path_factory):
    """A run folder's model of colored images of 16 px, with a head, and no recipe beside it."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("colored")
    spec = ModelSpec("cifar_resnet8", "default", 3, 16, HALF, HALF, head=HeadSpec("embedding", 5))
    save_model(folder, build_model(spec), spec)
    return folder


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """Thirty images of two classes, one that is cut, and a text beside them."""
    folder = tmp_path_factory.mktemp("work") / "photos"
    generator = np.random.default_rng(0)
    for place in range(30):
        path = folder / ("ant" if place % 3 else "bee") / f"{place:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(path)
    whole = (folder / "ant" / "01.png").read_bytes()
    (folder / "bee" / "cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "note.txt").touch()
    return folder


@pytest.fixture(scope="session")
def table(colored, photos):
    from ssl_transfer.embeddings.embedder import load

    return load(colored).embed(photos, progress=False)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path
