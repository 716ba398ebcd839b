import numpy as np
import pytest
from PIL import Image


def smooth(width=40, height=30, shade=255):
    """A smooth color picture, which survives JPEG."""
    across, down = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack((across, down, shade - across.clip(max=shade)), axis=2).astype(np.uint8))


@pytest.fixture
def picture():
    return smooth


@pytest.fixture
def save():
    """Write a smooth picture where its name says, in the format that the name ends in."""

    def write(path, width=40, height=30, shade=255):
        path.parent.mkdir(parents=True, exist_ok=True)
        smooth(width, height, shade).save(path)

    return write
