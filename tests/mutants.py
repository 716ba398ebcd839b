"""What ``make mutants`` found: how many mutants of each file are caught, and which survive without a known reason.

Reads ``mutants/``, where mutmut keeps its results, and ``tests/mutants.txt``, which groups survivors under a reason.
The share is of the mutants that were tried on the tests, which those that mypy refuses are not. A mutant in code that
no test runs survives; one that never ends is killed.
"""

import ast
import difflib
import json
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from mutmut.stats import status_by_exit_code

HERE = Path(__file__).parent
SURVIVES = ("survived", "no tests")
CAUGHT = ("killed", "timeout", "segfault")
COLUMNS = ("killed", "survive", "no test", "explained", "mypy", "not tried")


def statements(function: ast.FunctionDef) -> list[str]:
    """A function's lines without layout and comments, by the name that it has in the project."""
    function.name = re.sub(r"__mutmut_\w+$", "", function.name)
    return ast.unparse(function).splitlines()


def mutants(meta: Path) -> Iterator[tuple[str, str, str, str]]:
    """Name, function, change (``-old +new``) and status of every mutant of a file."""
    nodes = ast.walk(ast.parse(meta.with_suffix("").read_text()))
    functions = {node.name: node for node in nodes if isinstance(node, ast.FunctionDef)}
    for key, code in json.loads(meta.read_text())["exit_code_by_key"].items():
        path, _, number = key.rpartition("__mutmut_")
        mangled = path.rpartition(".")[2]
        old, new = (statements(functions[f"{mangled}__mutmut_{which}"]) for which in ("orig", number))
        lines = difflib.unified_diff(old, new, n=0, lineterm="")
        changed = " ".join(line[0] + line[1:].strip() for line in lines if not line.startswith(("---", "+++", "@@")))
        function = re.sub(r"x_?ǁ?", "", mangled, count=1).replace("ǁ", ".")
        yield key, function, changed, status_by_exit_code[code]


def reasons() -> list[tuple[str, re.Pattern[str]]]:
    """Paragraphs of a reason and, indented, the patterns of the mutants (``file function -old +new``) that it is of."""
    found, reason = [], ""
    for line in (HERE / "mutants.txt").read_text().splitlines():
        if line.startswith("    "):
            found.append((reason, re.compile(line.strip())))
        elif line and not line.startswith("#"):
            reason = line
    return found


def main() -> int:
    """Print the table and the survivors of which nothing is said; 1 if there are any."""
    known, used, unknown = reasons(), Counter[str](), []
    rows: dict[str, Counter[str]] = {}
    for meta in sorted(Path("mutants").rglob("*.py.meta")):
        file = str(meta.with_suffix("").relative_to("mutants/ssl_transfer"))
        row = rows[file] = Counter()
        for name, function, changed, status in mutants(meta):
            text = f"{file} {function} {changed}"
            row[status] += 1
            if status in SURVIVES:
                reason = next((reason for reason, pattern in known if pattern.search(text)), None)
                row["explained"] += reason is not None
                if reason is None:
                    unknown.append(f"{status}: {name}\n    {text}")
                else:
                    used[reason] += 1
    print(f"{'file':34}" + "".join(f"{name:>11}" for name in COLUMNS))
    for file, row in [*rows.items(), ("all", sum(rows.values(), Counter[str]()))]:
        killed, survive, without = sum(row[status] for status in CAUGHT), row["survived"], row["no tests"]
        tested = killed + survive + without
        share = f"{killed / tested:.1%}" if tested else ""
        counts = killed, survive, without, row["explained"], row["caught by type check"], row["not checked"]
        print(f"{file:34}" + "".join(f"{count:11}" for count in counts) + f"  {share} of {tested}")
    for reason, count in used.most_common():
        print(f"{count:5} {reason}")
    print(f"\n{len(unknown)} without a reason in tests/mutants.txt:" if unknown else "\nall that survive are explained")
    print(*unknown, sep="\n")
    return bool(unknown)


if __name__ == "__main__":
    sys.exit(main())
