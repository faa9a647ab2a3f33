"""Reads W&B sweep files, for local sweeps without a server."""

import itertools
import math
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from titans_seq import shipped
from titans_seq.config import load_config, read_yaml
from titans_seq.errors import InputError
from titans_seq.schema import Config

ARGUMENTS = "${args_no_hyphens}"  # where W&B's agent inserts key=value overrides
_DRAWS = 20  # runs of a random sweep without run_cap

Values = Mapping[str, Any]
_Draw = Callable[[random.Random], Any]


@dataclass(frozen=True)
class Sweep:
    """Combinations of values for keys of a configuration."""

    name: str
    method: Literal["grid", "random"]
    metric: str  # validation score, by the name under which tasks log it
    maximize: bool
    parameters: Mapping[str, Mapping[str, Any]]
    files: tuple[str, ...]
    overrides: tuple[str, ...]  # key=value
    cap: int | None  # maximum number of runs

    def combinations(self, seed: int = 0) -> Iterator[dict[str, Any]]:
        """Yield the values of every run, in order; the same seed draws the same values."""
        if self.method == "grid":
            names = list(self.parameters)
            listed = [_listed(name, self.parameters[name]) for name in names]
            products = (dict(zip(names, values, strict=True)) for values in itertools.product(*listed))
            yield from itertools.islice(products, self.cap)
            return
        draws = {name: _draw(name, spec) for name, spec in self.parameters.items()}
        source = random.Random(seed)
        for _ in range(self.cap or _DRAWS):
            yield {name: draw(source) for name, draw in draws.items()}

    def config(self, values: Values, folder: Path) -> Config:
        """Return the configuration of a run with `values`, in `folder`."""
        assigned = [f"{name}={'null' if value is None else value}" for name, value in values.items()]
        return load_config(self.files, [*self.overrides, *assigned, f"run.dir={folder}", "resume=auto"])


def read_sweep(path: Path) -> Sweep:
    """Read a sweep file. Raises InputError for what W&B, or a sweep without W&B's server, does not support."""
    path = shipped.find(path).path
    content = read_yaml(path)
    method = content.get("method")
    if method == "bayes":
        raise InputError(f"{path}: method: bayes requires W&B's server: wandb sweep {path}; without it: grid, random")
    if method not in ("grid", "random"):
        raise InputError(f"{path}: method: {method}; accepted: grid, random; with W&B's server also bayes")
    parameters, metric = content.get("parameters"), content.get("metric")
    if not isinstance(parameters, dict) or not parameters or not all(isinstance(p, dict) for p in parameters.values()):
        raise InputError(f"{path}: parameters: must map configuration keys to values or a distribution")
    if not isinstance(metric, dict) or not isinstance(metric.get("name"), str):
        raise InputError(f"{path}: metric: must have a name, such as val/mse, and a goal: minimize, maximize")
    if not metric["name"].startswith("val/"):
        raise InputError(f"{path}: metric.name: {metric['name']}; must be a validation score, such as val/mse")
    if metric.get("goal", "minimize") not in ("minimize", "maximize"):
        raise InputError(f"{path}: metric.goal: {metric['goal']}; accepted: minimize, maximize")
    files, overrides = _command(path, content.get("command"))
    cap = content.get("run_cap")
    if cap is not None and not (isinstance(cap, int) and cap > 0):
        raise InputError(f"{path}: run_cap: {cap}; must be a positive number of runs")
    sweep = Sweep(
        name=str(content.get("name") or path.stem),
        method=method,
        metric=metric["name"],
        maximize=metric.get("goal") == "maximize",
        parameters={str(name): spec for name, spec in parameters.items()},
        files=files,
        overrides=overrides,
        cap=cap,
    )
    for values in sweep.combinations():
        if sweep.config(values, Path("runs")).seeds:  # an invalid combination is reported before the first run
            raise InputError(f"{path}: seeds: not supported in a sweep; list the values of seed in parameters")
    return sweep


def _command(path: Path, command: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return config files and key=value overrides of `titans-seq fit ... ${args_no_hyphens}`."""
    parts = [str(part) for part in command] if isinstance(command, list) else []
    if "fit" not in parts or ARGUMENTS not in parts:
        raise InputError(f"{path}: command: must contain titans-seq, fit, config files and {ARGUMENTS}")
    between = [part for part in parts[parts.index("fit") + 1 :] if part != ARGUMENTS]
    return tuple(p for p in between if "=" not in p), tuple(p for p in between if "=" in p)


def _listed(name: str, spec: Mapping[str, Any]) -> list[Any]:
    if isinstance(spec.get("values"), list) and spec["values"]:
        return list(spec["values"])
    if "value" in spec:
        return [spec["value"]]
    raise InputError(f"parameters.{name}: a grid requires values: [...], or one value")


def _draw(name: str, spec: Mapping[str, Any]) -> _Draw:
    """Return a function that draws a value; supports W&B's distributions that need no server."""
    if "distribution" not in spec and ("values" in spec or "value" in spec):
        listed = _listed(name, spec)
        return lambda source: source.choice(listed)
    whole = isinstance(spec.get("min"), int) and isinstance(spec.get("max"), int)
    kind = spec.get("distribution", "int_uniform" if whole else "uniform")
    if kind in ("categorical", "constant"):
        listed = _listed(name, spec)
        return lambda source: source.choice(listed)
    low, high = spec.get("min"), spec.get("max")
    if not isinstance(low, (int, float)) or not isinstance(high, (int, float)) or not low <= high:
        raise InputError(f"parameters.{name}: requires numbers min and max, or values")
    if kind == "uniform":
        return lambda source: source.uniform(low, high)
    if kind == "int_uniform":
        return lambda source: source.randint(int(low), int(high))
    if kind == "log_uniform_values" and low > 0:
        return lambda source: math.exp(source.uniform(math.log(low), math.log(high)))
    supported = "uniform, int_uniform, log_uniform_values (min above 0), categorical, constant"
    raise InputError(f"parameters.{name}: distribution {kind} between {low} and {high}: not supported; use {supported}")
