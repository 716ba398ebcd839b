"""Models that come with the package, a folder each, as ``ssl-transfer export`` writes them: `zoo:NAME`."""

from pathlib import Path

_FOLDER = Path(__file__).parent


def names() -> list[str]:
    """What can be named."""
    return sorted(path.parent.name for path in _FOLDER.glob("*/config.json"))


def folder(name: str) -> Path:
    """The folder of the model ``name``, with its weights, its recipe and its card."""
    return _FOLDER / name
