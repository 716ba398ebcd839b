"""The image files in a tree of folders, links followed, with a count of all else that lies there."""

import os
from pathlib import Path

from ssl_transfer.data.sources.decode import SUFFIXES
from ssl_transfer.data.sources.inventory import HIDDEN, Tally

# What operating systems and file servers put among a person's files; names that begin with a dot are hidden anyway.
_OF_SYSTEMS = {
    *("__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"),
    *("$recycle.bin", "system volume information", "lost+found", "@eadir", "#recycle", "#snapshot"),
}


def list_files(top: Path) -> tuple[list[str], Tally]:
    """Paths below ``top`` of all files with one of :data:`SUFFIXES`, in their order, and a count of all others.

    Links are followed; one to a folder that it lies in is left out. A link to a file that is not there is listed if it
    is named like an image, and met with the images that cannot be decoded.

    Raises:
        FileNotFoundError: a link leads nowhere and is not named like an image, so it may have been one to a folder.
        ValueError: a folder is met on two ways, so that its images would be seen twice, and maybe as of two classes.
        PermissionError: a folder may not be read.
    """
    files: list[str] = []
    tally = Tally()
    met: dict[str, str] = {}  # the real path of each folder, and the one on which it was met
    # What is still to be looked at, the next one last; with each, the real paths of the folders that it lies in.
    waiting: list[tuple[os.DirEntry[str], tuple[str, ...]]] = []

    def enter(folder: str, inside: tuple[str, ...]) -> None:
        met[inside[-1]] = folder
        with os.scandir(folder) as entries:
            waiting.extend((entry, inside) for entry in sorted(entries, key=lambda entry: entry.name, reverse=True))

    enter(str(top), (os.path.realpath(top),))
    while waiting:
        entry, inside = waiting.pop()
        path, kind = entry.path.removeprefix(f"{top}{os.sep}"), _kind(entry)
        if is_hidden(entry.name):
            tally.leave_out(HIDDEN, path + os.sep * (kind == "folder"))
        elif kind == "folder":
            real = os.path.realpath(entry.path) if entry.is_symlink() else os.path.join(inside[-1], entry.name)
            if any(os.path.join(folder, "").startswith(os.path.join(real, "")) for folder in inside):
                tally.leave_out("links to a folder that they lie in", path)
            elif real in met:
                raise ValueError(
                    f"{met[real]} and {entry.path} are the same folder, whose images would be seen twice: remove one "
                    "of them, which is a link."
                )
            else:
                enter(entry.path, (*inside, real))
        elif suffix_of(path) in SUFFIXES and kind in ("file", "link to nothing"):
            files.append(path)
        elif kind == "link to nothing":
            raise FileNotFoundError(
                f"{entry.path} is a link to nothing, and may have been one to a folder of images: mend or remove it."
            )
        elif kind == "file":
            tally.leave_out(f"files ending in {suffix_of(path)}" if suffix_of(path) else "files without a suffix", path)
        else:
            tally.leave_out("devices, pipes or sockets", path)
    return files, tally


def is_hidden(name: str) -> bool:
    """Whether a file or folder of that name is hidden, or put there by an operating system."""
    return name.startswith(".") or name.lower() in _OF_SYSTEMS


def suffix_of(path: str) -> str:
    """What a path ends in from its last dot on, in small letters: ``.jpg``; nothing if its file has no dot."""
    return os.path.splitext(path)[1].lower()


def _kind(entry: os.DirEntry[str]) -> str:
    try:
        if entry.is_dir():
            return "folder"
        if entry.is_file():
            return "file"
    except OSError:  # links that lead in a circle
        return "link to nothing"
    return "link to nothing" if entry.is_symlink() and not os.path.exists(entry.path) else "other"
