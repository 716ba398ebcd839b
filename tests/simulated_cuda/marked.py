"""The tests marked gpu on the pretended one, so that none of them is first run where time is short.

    python -m tests.simulated_cuda.marked            # further arguments are pytest's, such as -k nccl

Left out are losses of thousands of rows, where a GPU shows how it rounds, and what asks for the device below Python:
the thread that pins what workers decode, and what is compiled.
"""

import sys
from pathlib import Path

import pytest

from tests.simulated_cuda.device import pretended_gpu

TESTS = Path(__file__).parent.parent
NOT_PRETENDED = (
    "models/test_compiled.py::test_networks_that_are_compiled_for_a_gpu_take_the_same_steps",
    "losses/test_precision.py::test_gpu_agrees_with_float64_on_the_cpu_for_many_rows",
    "test_gpu.py::test_streamed_batches_are_those_of_held_images[2]",
)

if __name__ == "__main__":
    marked = [str(file) for file in sorted(TESTS.rglob("test_*.py")) if "pytest.mark.gpu" in file.read_text()]
    without = [f"--deselect=tests/{name}" for name in NOT_PRETENDED]
    with pretended_gpu():
        code = pytest.main(["-m", "gpu", "-p", "no:cacheprovider", *without, *marked, *sys.argv[1:]])
    sys.exit(code)
