"""Published weights without a network: what was downloaded before is used, and the rest is refused within seconds."""

from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub import constants
from huggingface_hub.utils import get_session

_SECONDS = 5.0  # to wait for the hub's first word


@contextmanager
def offline_if_unreachable() -> Iterator[None]:
    """Inside the block the Hugging Face hub is not asked where it cannot be reached: it would be, for a minute."""
    before = constants.HF_HUB_OFFLINE
    if not before:
        try:
            get_session().head(constants.ENDPOINT, timeout=_SECONDS)
        except Exception:  # of whichever library the hub's client is built on
            constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
