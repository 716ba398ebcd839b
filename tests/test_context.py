"""Where a recipe runs: its own arithmetic, whatever the machine is configured for, and time to wait."""

from datetime import timedelta
from types import SimpleNamespace

import pytest
import torch
from accelerate.state import AcceleratorState, GradientState, PartialState
from accelerate.utils import DynamoBackend

from ssl_transfer import config, context, evaluation, processes
from ssl_transfer.context import Context, take_threads
from ssl_transfer.errors import UserError
from ssl_transfer.scores.knn import KNN
from tests.test_config import PRETRAIN


@pytest.fixture
def load(tmp_path):
    (tmp_path / "small.yaml").write_text(PRETRAIN)
    return lambda *overrides: config.load(tmp_path / "small.yaml", [f"train.runs={tmp_path / 'runs'}", *overrides])


@pytest.fixture
def first_of_the_process():
    """accelerate as it is in a new process."""

    def reset():
        AcceleratorState._reset_state(reset_partial_state=True)
        GradientState._reset_state()

    reset()
    yield
    reset()


def test_the_machines_configuration_does_not_change_the_recipes_arithmetic(load, monkeypatch, first_of_the_process):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", "EAGER")
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    accelerator = Context.start(load()).accelerator
    assert accelerator.mixed_precision == "no" and not accelerator.native_amp
    assert accelerator.state.dynamo_plugin.backend == DynamoBackend.NO
    assert accelerator.gradient_accumulation_steps == 1


def test_a_collective_that_never_ends_gives_up_within_the_hour(load, monkeypatch, first_of_the_process):
    """NCCL's default of ten minutes is too short for a checkpoint on a slow disk, or for compiling."""
    asked = [Context.start(load()).accelerator.init_handler.to_kwargs()]

    def state(*arguments, **options):
        asked.append(options)
        return PartialState(*arguments, **options)

    monkeypatch.setattr(context, "PartialState", state)
    monkeypatch.setattr("sys.argv", ["knn.py", "--features", "nothing.npz"])
    with pytest.raises(SystemExit):
        evaluation.evaluate("k nearest neighbors", KNN)
    assert [options["timeout"] for options in asked[:2]] == [timedelta(minutes=30)] * 2  # the first sets them up


@pytest.mark.parametrize("variable", ["FSDP", "DEEPSPEED", "MEGATRON_LM", "PARALLELISM_CONFIG"])
def test_what_divides_a_model_is_refused_at_the_start(load, monkeypatch, first_of_the_process, variable):
    monkeypatch.setenv(f"ACCELERATE_USE_{variable}", "true")
    with pytest.raises(UserError, match="which divides a model .*: start with accelerate launch --multi_gpu"):
        Context.start(load())


def test_tasks_of_srun_without_a_launcher_are_refused(load, monkeypatch, first_of_the_process):
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "2")
    with pytest.raises(UserError, match="srun started 2 tasks .*--ntasks-per-node=1 accelerate launch --multi_gpu"):
        Context.start(load())
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "1")
    Context.start(load())


def test_what_the_launcher_was_asked_for_and_is_not_done_is_said(load, monkeypatch, first_of_the_process, capsys):
    command = ["python", "/bin/accelerate", "launch", "--cpu", "--num_processes=2", "-m", "ssl_transfer"]
    monkeypatch.setattr(processes.psutil.Process, "parent", lambda self: SimpleNamespace(cmdline=lambda: command))
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp16")
    Context.start(load())
    precision, count = capsys.readouterr().out.splitlines()
    assert precision == "accelerate's mixed precision fp16 is not used: the recipe's train.precision decides"
    assert count.startswith("accelerate launch was asked for 2 processes and started one")
    command[4:5] = ["--num_processes", "1"]
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION")
    Context.start(load())
    assert capsys.readouterr().out == ""


def test_a_gpu_of_apple_that_is_not_used_is_said(load, monkeypatch, first_of_the_process, capsys):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert Context.start(load()).device.type == "cpu"
    assert capsys.readouterr().out == "this run computes on the CPU: Apple's GPU (MPS) is not used\n"


def test_another_recipe_has_its_own_arithmetic_and_leaves_it_behind(load):
    def products():
        return [torch.backends.cuda.matmul.fp32_precision, torch.backends.cudnn.conv.fp32_precision]

    started = Context.start(load("train.precision=bf16"))
    assert products() == ["tf32", "tf32"]
    with pytest.raises(ZeroDivisionError), started.arithmetic_of(load("train.precision=full")) as own:
        assert (own.precision, own.layout) == (torch.float32, torch.contiguous_format)
        assert products() == ["ieee", "ieee"] and own.accelerator is started.accelerator
        raise ZeroDivisionError
    assert products() == ["tf32", "tf32"]
    assert (started.precision, started.layout) == (torch.bfloat16, torch.channels_last)


def test_what_looks_like_markup_is_said_as_it_is(load, first_of_the_process, capsys):
    Context.start(load()).say("run folder: r[/new]/[red]x :smile:")
    assert capsys.readouterr().out == "run folder: r[/new]/[red]x :smile:\n"


@pytest.mark.parametrize("left_over", ["WORLD_SIZE=2", "WORLD_SIZE=two", "LOCAL_WORLD_SIZE=two", "LOCAL_RANK=0"])
def test_a_launch_that_the_environment_has_in_part_is_one_sentence(load, monkeypatch, first_of_the_process, left_over):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "")  # accelerate adds to the environment: after the test it is as it was
        monkeypatch.delenv(name)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")  # from a launcher OMP_NUM_THREADS=1 is no wish: cores are counted
    monkeypatch.setenv(*left_over.split("="))
    with pytest.raises(
        UserError, match=f"speaks of several processes \\({left_over}\\), .*: start them with accelerate"
    ):
        Context.start(load("train.cpu_threads=null"))


@pytest.mark.parametrize(
    ("environment", "asked", "threads"),
    [
        ({"OMP_NUM_THREADS": "3"}, None, None),  # as it says, which torch has read by itself
        ({"OMP_NUM_THREADS": "3"}, 5, 5),
        ({}, None, 8),
        ({"LOCAL_WORLD_SIZE": "2"}, None, 4),
        ({"OMP_NUM_THREADS": "1", "ACCELERATE_MIXED_PRECISION": "no"}, None, 8),  # set by the launcher for nobody
        ({"OMP_NUM_THREADS": "1"}, None, None),
        ({"OMP_NUM_THREADS": "2", "ACCELERATE_MIXED_PRECISION": "no"}, None, None),
    ],
)
def test_threads_are_those_of_the_recipe_or_the_environment_or_the_machine(monkeypatch, environment, asked, threads):
    for name in ("OMP_NUM_THREADS", "LOCAL_WORLD_SIZE", "ACCELERATE_MIXED_PRECISION", "TORCHELASTIC_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: range(8), raising=False)
    taken = []
    monkeypatch.setattr(torch, "set_num_threads", taken.append)
    take_threads(asked)
    assert taken == ([] if threads is None else [threads])


@pytest.mark.parametrize(("amx", "avx512_bf16", "chosen"), [(0, 0, "float32"), (1, 0, "bfloat16"), (0, 1, "bfloat16")])
def test_auto_is_bf16_on_a_cpu_that_multiplies_it(load, monkeypatch, first_of_the_process, amx, avx512_bf16, chosen):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: bool(amx))
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: bool(avx512_bf16))
    assert Context.start(load("train.precision=auto")).precision_name == chosen
    assert Context.start(load("train.precision=full")).precision_name == "float32"
