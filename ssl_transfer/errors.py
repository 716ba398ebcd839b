"""The one exception that means: the person who started the program can mend this."""

from collections.abc import Iterator
from contextlib import contextmanager


class UserError(Exception):
    """A mistake in a recipe, a path or a command, in one sentence; the command line prints it and exits with 2."""

    exit_code = 2


@contextmanager
def user_mistakes() -> Iterator[None]:
    """Turn what the library raises for a user's mistake into a :class:`UserError` with the same sentence.

    Raises:
        UserError: ``ValueError``, ``FileNotFoundError`` or ``PermissionError`` was raised inside the block.
    """
    try:
        yield
    except (ValueError, FileNotFoundError, PermissionError) as error:
        raise UserError(" ".join(str(error).split())) from error
