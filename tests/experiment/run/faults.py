"""Fault injection: run commands in processes that can be killed, forked from a process that has done all imports."""

import contextlib
import errno
import importlib
import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tests.experiment.run.faults_preload"])


class Death(NamedTuple):
    """Fault: the process kills itself when `name` is called for the `count`-th time."""

    name: str
    count: int

    def before_call(self, calls: int) -> None:
        """Trigger the fault if this call is due; runs before every call."""
        if calls == self.count:
            os.kill(os.getpid(), signal.SIGKILL)


class DiskFull(NamedTuple):
    """Fault: from the `count`-th call of `name` on, the disk is full."""

    name: str
    count: int

    def before_call(self, calls: int) -> None:
        """Trigger the fault if this call is due; runs before every call."""
        if calls >= self.count:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class Done(NamedTuple):
    """Exit status and output of a process."""

    status: int  # exit status, or minus the signal that ended it
    out: str
    err: str


class Command:
    """`titans-seq ARGUMENTS...` in a running process; each call of the function named by `slow` takes 0.1 s longer."""

    def __init__(
        self,
        arguments: Sequence[str | Path],
        cwd: Path,
        death: Death | DiskFull | None = None,
        env: dict[str, str] | None = None,
        slow: str | None = None,
    ) -> None:
        self.log = cwd / f"log-{time.monotonic_ns()}"
        process_arguments = ([str(argument) for argument in arguments], cwd, self.log, death, env or {}, slow)
        self.process: BaseProcess = _CONTEXT.Process(target=_run, args=process_arguments)
        self.process.start()

    def kill(self, sent: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to the process."""
        assert self.process.pid
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process.pid, sent)

    def wait_for(self, condition: Callable[[], bool], seconds: float = 300) -> None:
        """Wait until `condition` is true; fails if the process ends first."""
        end = time.monotonic() + seconds
        while not condition():
            assert self.process.is_alive(), self.wait()
            assert time.monotonic() < end, "timed out waiting for the condition"
            time.sleep(0.005)

    def wait(self, seconds: float = 500) -> Done:
        """Wait until the process ends; if it does not, it is killed and the test fails."""
        self.process.join(seconds)
        hangs = self.process.is_alive()
        self.process.kill()
        self.process.join()
        texts = [path.read_text() if path.exists() else "" for path in self._files()]
        assert not hangs, f"still running after {seconds} s: {texts}"
        assert self.process.exitcode is not None
        return Done(self.process.exitcode, *texts)

    def _files(self) -> tuple[Path, Path]:
        return self.log.with_suffix(".out"), self.log.with_suffix(".err")


def run(
    arguments: Sequence[str | Path], cwd: Path, death: Death | DiskFull | None = None, env: dict[str, str] | None = None
) -> Done:
    """Run a command and wait until it ends."""
    return Command(arguments, cwd, death, env).wait()


def _run(
    arguments: list[str], cwd: Path, log: Path, death: Death | DiskFull | None, env: dict[str, str], slow: str | None
) -> None:
    from titans_seq.cli import main
    from titans_seq.experiment.forecasting import experiment

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may start its children with SIGINT ignored
    os.chdir(cwd)
    os.environ.update(env)
    with log.with_suffix(".out").open("w") as out, log.with_suffix(".err").open("w") as err:
        for file, number in ((out, 1), (err, 2)):
            os.dup2(file.fileno(), number)
        sys.stdout, sys.stderr = out, err
        experiment.plot_forecasts = _skip_plot
        if death:
            _before_each_call(death.name, death.before_call)
        if slow:
            _before_each_call(slow, lambda _: time.sleep(0.1))
        try:
            status = main(arguments)
        except BaseException:  # noqa: BLE001 - the test reads the traceback
            traceback.print_exc()
            status = 1
        out.flush()
        err.flush()
        os._exit(status)  # at once: library threads must neither delay the exit nor change the status


def _skip_plot(path: Path, **_: Any) -> None:
    """Create an empty figure: plotting takes half of a short run's time."""
    path.touch()


def _before_each_call(name: str, do: Callable[[int], Any]) -> None:
    """Call `do` with the number of the call before each call of `name` (module.attribute or module.Class.method)."""
    module_name, _, attribute = name.rpartition(".")
    try:
        owner: Any = importlib.import_module(module_name)
    except ModuleNotFoundError:
        outer, _, inner = module_name.rpartition(".")
        owner = getattr(importlib.import_module(outer), inner)
    original, calls = getattr(owner, attribute), 0

    def call(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        do(calls)
        return original(*args, **kwargs)

    setattr(owner, attribute, call)
