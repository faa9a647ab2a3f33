"""Batches from data loaders of other people: tuples and dictionaries, converted to the batch types of the tasks."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from titans_seq.batch import PAD_TOKEN, CovariateBatch, CovariateInputs, ForecastBatch, SequenceBatch, SeriesBatch
from titans_seq.errors import InputError


def named_tensors(batch: Any, task: str, required: Sequence[str], optional: Sequence[str] = ()) -> dict[str, Any]:
    """Return the tensors of a dictionary, or of a tuple in the order of `required` and `optional`, by name.

    Raises InputError when tensors are missing or unknown.
    """
    names = [*required, *optional]
    if isinstance(batch, Tensor):
        batch = (batch,)
    if isinstance(batch, Mapping):
        named = dict(batch)
    elif isinstance(batch, (tuple, list)) and len(batch) <= len(names):
        named = dict(zip(names, batch, strict=False))
    else:
        named = {}
    unknown = [str(name) for name in named if name not in names]
    missing = [name for name in required if name not in named]
    other = [name for name, x in named.items() if not isinstance(x, Tensor | CovariateInputs)]
    if unknown or missing or other:
        may_be = f" and, if it has them, {', '.join(optional)}" if optional else ""
        raise InputError(
            f"{task}: a batch must be a tuple or a dictionary of the tensors {', '.join(required)}{may_be}; got "
            f"{_contents(batch)}"
        )
    return named


class WindowShapes(NamedTuple):
    """Sizes of the windows that a forecaster was built for."""

    context_length: int  # L
    horizon: int  # H
    channels: int  # C


def forecast_batch(
    batch: Any, task: str, shapes: WindowShapes, dtype: torch.dtype, *, with_targets: bool = True
) -> ForecastBatch | CovariateBatch:
    """Convert a batch of windows and check its shapes.

    Args:
        batch: a `ForecastBatch` or `CovariateBatch`, or context, target and, if known, start and covariates.
        task: name of the task, for errors.
        shapes: of the model.
        dtype: to which numbers of other loaders are converted.
        with_targets: whether the target must be given; without it, it is NaN where it is not.
    """
    known = isinstance(batch, ForecastBatch | CovariateBatch)
    windows = batch if known else _windows(batch, task, shapes, dtype, with_targets)
    for name, key in (("context", "context_length"), ("target", "horizon")):
        x, steps = getattr(windows, name), getattr(shapes, key)
        if x.ndim != 3:
            raise InputError(f"{task}: {name} must be (windows, steps, channels); got {_described(x)}")
        if x.shape[2] != shapes.channels:
            built = f"the task was built for num_channels={shapes.channels}"
            raise InputError(f"{task}: {name} has {x.shape[2]} channels; {built}")
        if x.shape[1] != steps:
            raise InputError(f"{task}: {name} has {x.shape[1]} steps; the task was built for data.{key}={steps}")
    return windows


def _windows(
    batch: Any, task: str, shapes: WindowShapes, dtype: torch.dtype, with_targets: bool
) -> ForecastBatch | CovariateBatch:
    required, optional = _split(("context", "target", "start", "covariates"), 2 if with_targets else 1)
    named = named_tensors(batch, task, required, optional)
    context = named["context"].to(dtype)
    unknown = torch.full((len(context), shapes.horizon, shapes.channels), torch.nan)
    target, start = named.get("target", unknown).to(dtype), named.get("start", torch.full((len(context),), -1))
    covariates = named.get("covariates")
    if covariates is None:
        return ForecastBatch(context, target, start)
    return CovariateBatch(context, target, start, covariates)


def sequence_batch(batch: Any, task: str, num_classes: int, *, with_targets: bool = True) -> SequenceBatch:
    """Convert a batch of labelled sequences: tokens, labels and, if known, mask and rows; check its values.

    Without a mask, `PAD_TOKEN` is padding. Without targets, missing labels are 0.
    """
    if isinstance(batch, SequenceBatch):
        return batch
    required, optional = _split(("tokens", "labels", "mask", "rows"), 2 if with_targets else 1)
    named = named_tensors(batch, task, required, optional)
    tokens = named["tokens"]
    if tokens.ndim != 2 or tokens.is_floating_point() or int(tokens.min()) < 0 or int(tokens.max()) > PAD_TOKEN:
        alphabet = f"integers from 0 to {PAD_TOKEN} (A, C, G, T, N, padding)"
        raise InputError(f"{task}: tokens must be (sequences, bases) of {alphabet}; got {_described(tokens)}")
    labels = named.get("labels", torch.zeros(len(tokens), dtype=torch.int64))
    if labels.shape != tokens.shape[:1] or int(labels.min()) < 0 or int(labels.max()) >= num_classes:
        expected = f"one class number below {num_classes} for each sequence"
        raise InputError(f"{task}: labels must be {expected}; got {_described(labels)}")
    mask, rows = named.get("mask", tokens != PAD_TOKEN), named.get("rows", torch.full((len(tokens),), -1))
    return SequenceBatch(tokens.long(), mask, labels.long(), rows)


def series_batch(batch: Any, task: str, dtype: torch.dtype) -> SeriesBatch:
    """Convert a batch of univariate series: values and, if known, period."""
    if isinstance(batch, SeriesBatch):
        return batch
    named = named_tensors(batch, task, ("values",), ("period",))
    values = named["values"]
    if values.ndim != 2:
        raise InputError(f"{task}: values must be (series, steps); got {_described(values)}")
    return SeriesBatch(values.to(dtype), named.get("period", torch.zeros(len(values), dtype=torch.int64)))


def _split(names: tuple[str, ...], required: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the first names, which must be given, and the others."""
    return names[:required], names[required:]


def _contents(batch: Any) -> str:
    if isinstance(batch, Mapping):
        return f"a dictionary of {', '.join(map(str, batch)) or 'nothing'}"
    if isinstance(batch, (tuple, list)):
        return f"a {type(batch).__name__} of {len(batch)} values"
    return f"a {type(batch).__name__}"


def _described(x: Tensor) -> str:
    values = f" with values from {x.min():g} to {x.max():g}" if x.numel() else ""
    return f"{str(x.dtype).removeprefix('torch.')} {tuple(x.shape)}{values}"
