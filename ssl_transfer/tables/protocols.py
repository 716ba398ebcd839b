"""Which scores may stand in one column: those taken alike, and what that means. Imports no torch."""

from collections.abc import Iterable, Mapping
from typing import Any

from ssl_transfer.errors import UserError
from ssl_transfer.scores import KINDS
from ssl_transfer.section import short

# What makes two scores of one name comparable, from the score's own protocol or from what is common to a run's scores:
# the images and the layer, and what each kind of score names itself. What is drawn, chosen or noted on the way is not
# in it: seeds, a chosen strength, hashes of weights, dates, versions.
_OF_ALL = (
    "dataset",
    "fingerprints",  # of the images of both splits
    "probe",
    "layer",
    "precision",
    "n_train",
    "n_test",
    "test_split",
)
PROTOCOL = tuple(dict.fromkeys((*_OF_ALL, *(key for kind in KINDS for key in kind.protocol_keys))))


def refuse_mixed(taken: Iterable[tuple[str, str, Mapping[str, Any]]]) -> None:
    """Refuse scores of one name that were not taken alike; each is (its name, its run's folder, its protocol).

    Raises:
        UserError: in which key two runs differ.
    """
    first: dict[str, tuple[str, Mapping[str, Any]]] = {}
    for name, folder, protocol in taken:
        other, known = first.setdefault(name, (folder, protocol))
        for key in PROTOCOL:
            if protocol.get(key) != known.get(key):
                raise UserError(
                    f"{name} was not taken alike: {key} is {short(known.get(key))} in {other} and "
                    f"{short(protocol.get(key))} in {folder}; compare runs of one protocol, or score one of them "
                    f"again as the other was: ssl-transfer score {folder} score=..."
                )


def in_words(protocol: Mapping[str, Any]) -> str:
    """The protocol as a person reads it."""
    told = ((key.replace("_", " "), protocol.get(key)) for key in PROTOCOL if key != "fingerprints")
    return ", ".join(f"{key} {value}" for key, value in told if value not in (None, ""))
