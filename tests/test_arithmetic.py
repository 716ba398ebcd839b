import pytest

from ssl_transfer.arithmetic import CPU_MATMUL, GPU_CONVOLUTION, GPU_MATMUL, products_in, set_products

BACKENDS = (GPU_MATMUL, GPU_CONVOLUTION, CPU_MATMUL)


def precisions() -> list[str]:
    return [backend.fp32_precision for backend in BACKENDS]


@pytest.fixture(autouse=True)
def restored():
    before = precisions()
    yield
    for backend, precision in zip(BACKENDS, before, strict=True):
        set_products(precision, backend)


def test_products_are_in_the_precision_inside_and_as_before_after_it():
    set_products("tf32", GPU_MATMUL, GPU_CONVOLUTION)
    set_products("bf16", CPU_MATMUL)
    with products_in("ieee", GPU_MATMUL, CPU_MATMUL):
        assert precisions() == ["ieee", "tf32", "ieee"]
        with products_in("tf32", GPU_MATMUL):
            assert precisions() == ["tf32", "tf32", "ieee"]
        assert precisions() == ["ieee", "tf32", "ieee"]
    assert precisions() == ["tf32", "tf32", "bf16"]


def test_a_failure_inside_leaves_no_trace():
    set_products("tf32", *BACKENDS)
    with pytest.raises(ZeroDivisionError), products_in("ieee", *BACKENDS):
        raise ZeroDivisionError
    assert precisions() == 3 * ["tf32"]


def test_a_function_runs_in_it_each_time_it_is_called():
    set_products("tf32", GPU_MATMUL)
    inside = products_in("ieee", GPU_MATMUL)(lambda: GPU_MATMUL.fp32_precision)
    assert [inside(), inside()] == ["ieee", "ieee"] and GPU_MATMUL.fp32_precision == "tf32"
