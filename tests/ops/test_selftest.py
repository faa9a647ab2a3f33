"""Backend "auto" on a CUDA device, simulated with Triton's interpreter on a CPU, and the kernels' self-test."""

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.ops.kernel_cases import make_tokens, make_weights
from titans_seq.ops import titans_memory
from titans_seq.ops.memory import backends
from titans_seq.ops.memory.arguments import Options
from titans_seq.ops.memory.triton import selftest

pytest.importorskip("triton", reason="Triton is made for Linux only")
CPU = torch.device("cpu")


@pytest.fixture
def on_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """Treat tensors as if on a GPU on which no self-test has run."""
    monkeypatch.setattr(backends, "on_cuda", lambda _: True)
    selftest.why_not_trusted.cache_clear()


def chosen(monkeypatch: pytest.MonkeyPatch, **options: Any) -> str:
    """Return the backend that "auto" chooses for a call."""
    taken = []
    choose = backends.choose_backend

    def spy(*arguments: Any) -> str:
        taken.append(choose(*arguments))
        return taken[-1]

    monkeypatch.setattr("titans_seq.ops.memory.dispatch.choose_backend", spy)
    tokens, weights = [x.float() for x in make_tokens(5, 32, 32)], [w.float() for w in make_weights((32, 32))]
    titans_memory(*tokens, weights, **options)
    (path,) = taken
    return path


def kind(dtype: torch.dtype = torch.float32, sizes: tuple[int, ...] = (32, 32), **changes: Any) -> selftest.KernelCase:
    return selftest.KernelCase.of(dtype, sizes, Options(**changes))


def test_without_cuda_auto_is_chunked_and_runs_no_self_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "why_not_trusted", lambda *_: pytest.fail("a self-test ran"))
    assert chosen(monkeypatch) == "chunked"


@pytest.mark.usefixtures("on_cuda")
def test_auto_chooses_triton_where_it_passes_the_self_test(monkeypatch: pytest.MonkeyPatch) -> None:
    assert chosen(monkeypatch) == "triton"


@pytest.mark.usefixtures("on_cuda")
def test_auto_is_chunked_where_triton_does_not_support_the_options(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "why_not_trusted", lambda *_: pytest.fail("a self-test ran"))
    assert chosen(monkeypatch, residual=True) == "chunked"


@pytest.mark.usefixtures("on_cuda")
def test_kernels_with_large_errors_are_not_trusted_and_warn_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(device: torch.device, kind: selftest.KernelCase) -> float:
        return 0.5

    monkeypatch.setattr(selftest, "worst_error", wrong)
    with pytest.warns(
        UserWarning, match='"triton" failed its self-test: relative error 5e-01 on cpu; "auto" uses "chunked"'
    ):
        assert chosen(monkeypatch) == "chunked"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert chosen(monkeypatch) == "chunked"


@pytest.mark.usefixtures("on_cuda")
@pytest.mark.parametrize("found", [RuntimeError("out of registers\nand so on"), KeyError()])
def test_kernels_that_raise_are_not_trusted(found: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise found

    monkeypatch.setattr("titans_seq.ops.memory.triton.op.triton_memory", broken)
    with pytest.warns(UserWarning, match=f"failed its self-test: {type(found).__name__}"):
        assert chosen(monkeypatch) == "chunked"


@pytest.mark.parametrize(
    "case",
    [
        kind(chunk_size=64, forget_to="initial"),
        kind(gradient="online", outer_gradient="first_order"),
        kind(sizes=(32, 64, 32), activation="gelu"),
    ],
)
def test_correct_kernels_pass_with_a_large_margin(case: selftest.KernelCase) -> None:
    assert selftest.worst_error(CPU, case) < 1e-5


@pytest.mark.parametrize("place", [0, 1])
def test_a_wrong_result_is_detected(place: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong number, or NaN."""
    results = selftest._results

    def wrong(leaves: list[Tensor], *rest: Any) -> list[Tensor]:
        found = results(leaves, *rest)
        if leaves[0].dtype == torch.float32:
            found[-1].view(-1)[0] += (1.0, torch.nan)[place]
        return found

    monkeypatch.setattr(selftest, "_results", wrong)
    assert not selftest.worst_error(CPU, kind()) <= 1e-3


def test_options_that_do_not_change_the_kernels_share_a_self_test() -> None:
    assert kind(chunk_size=5, checkpoint_every=3) == kind(chunk_size=16)
    assert kind(chunk_size=32) == kind(chunk_size=100) != kind(chunk_size=16)
