import numpy as np
import pytest
import torch
from PIL import Image

from ssl_transfer import cli
from ssl_transfer.data import Augment, Batches, Images
from ssl_transfer.report.views_sheet import draw_views


@pytest.fixture
def images():
    """Twelve gray images, each of one value."""
    pixels = (torch.arange(12) * 20).byte().view(12, 1, 1, 1).expand(12, 1, 8, 8).contiguous()
    return Images(pixels, None, None, "flat", "train", (0.5,), (0.5,))


def cells(path, rows, columns):
    """The value in the middle of each cell: squares of 96, gaps of 4, a line of 14 above each row and the sheet."""
    sheet = np.asarray(Image.open(path).convert("L"))
    assert sheet.shape == (14 + rows * 114, columns * 100 + 4)
    return [[int(sheet[14 + row * 114 + 62, 52 + column * 100]) for column in range(columns)] for row in range(rows)]


def test_a_row_is_an_image_and_its_views_in_order_of_view_id_and_view(images, tmp_path):
    batches = Batches(images, [Augment(8), Augment(8, brightness=0.8, color_jitter=1.0)], seed=0, batch_size=6)
    draw_views(batches, tmp_path / "deep" / "views.png", images=4, view_ids=2)
    index = batches.index(0)[:4]
    pixels = images.pixels[index]
    expected = [pixels.float() / 255]
    for view_id in range(2):
        expected += batches.views_of(pixels, index, view_id)
    values = torch.stack([(column[:, 0, 4, 4] * 255).round().int() for column in expected], dim=1)
    assert cells(tmp_path / "deep" / "views.png", 4, 5) == values.tolist()


def test_fixed_views_are_shown_once(images, tmp_path):
    batches = Batches(images, [Augment(8)] * 2, seed=0, batch_size=3, fixed_views=2)
    draw_views(batches, tmp_path / "views.png", view_ids=5)
    assert len(cells(tmp_path / "views.png", 3, 5)) == 3


def test_a_name_that_is_no_picture_is_refused(images, tmp_path):
    with pytest.raises(ValueError, match=r"end it in \.png, \.jpg or \.webp"):
        draw_views(Batches(images, [Augment(8)], seed=0, batch_size=3), tmp_path / "views.yaml")


def test_the_command_draws_a_recipes_views(recipes, tmp_path, capsys):
    cli.main(["show", str(recipes / "digits" / "simclr.yaml"), "--views", str(tmp_path / "views.png")])
    assert "shows images of digits" in capsys.readouterr().out
    assert len(cells(tmp_path / "views.png", 8, 7)) == 8
