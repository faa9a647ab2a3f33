"""Rules that tie two keys of a configuration."""

from collections.abc import Callable
from pathlib import Path

from titans_seq.errors import InputError
from titans_seq.schema import (
    CALENDAR,
    WITH_ATTENTION,
    WITH_MEMORY,
    BackboneOptions,
    ClassificationConfig,
    Config,
    ForecastConfig,
    ForecastDataOptions,
    PretrainingConfig,
    PretrainingTaskOptions,
    SequenceModelOptions,
    TrainerOptions,
)

_Reject = Callable[[str, str, str], None]
_UNUSED = "ddp_find_unused_parameters_true"  # parameters, at some steps
_TABLE_KEYS = (
    *("path", "time", "time_format", "id", "target", "past", "known", "static"),
    *("fill", "train_end", "validation_end", "season"),
)


def check_together(config: Config, sources: dict[str, str], stored: str = "") -> None:
    """Raise InputError, naming where the key was written, for two keys that do not go together.

    What is `stored`, the source of a trained model's keys, may hold some that did nothing.
    """

    def reject(key: str, other: str, rule: str) -> None:
        source = sources.get(key) or sources.get(other, "config")  # whichever of the two is not a default
        raise InputError(f"{source}: {key}: {rule}")

    def reject_written(key: str, other: str, rule: str) -> None:
        if not stored or sources.get(key) != stored:
            reject(key, other, rule)

    if config.experiment in ("", ".", "..") or config.experiment != Path(config.experiment).name:
        reject(
            "experiment", "experiment", f"{config.experiment!r} names a folder below runs; it must be one plain name"
        )
    if any(not 0 <= seed < 2**32 for seed in config.seeds):
        reject("seeds", "seeds", f"{config.seeds}: each must be between 0 and {2**32 - 1}")
    if len(set(config.seeds)) < len(config.seeds):
        reject("seeds", "seeds", f"{config.seeds} names a seed twice")
    if config.model.variant in WITH_MEMORY:
        _check_memory(config.model, reject)
    if config.model.variant in WITH_ATTENTION:
        _check_attention(config.model, reject)
    _check_trainer(config.trainer, reject)
    if config.model.dropout == 1:
        reject("model.dropout", "model.dropout", "1 leaves nothing of the features; below 1")
    if isinstance(config, ForecastConfig):
        _check_patches(config, reject)
        _check_baseline(config, reject)
        _check_series(config, reject)
    if isinstance(config.model, SequenceModelOptions):
        _check_stem(config.model, reject)
    if isinstance(config, ClassificationConfig):
        _check_finetuning(config, reject)
        _check_sequences(config, reject)
    if isinstance(config, PretrainingConfig):
        _check_pretraining(config, reject)
    _check_idle(config, reject_written)


def _check_trainer(trainer: TrainerOptions, reject: _Reject) -> None:
    for key in ("gradient_clip", "ema_decay"):
        if trainer.strategy.startswith("fsdp") and getattr(trainer, key):
            rule = "fsdp shards the weights, and Lightning does this with whole ones alone; 0"
            reject(f"trainer.{key}", "trainer.strategy", rule)
    if trainer.ema_decay == 1:
        reject("trainer.ema_decay", "trainer.ema_decay", "1 keeps the weights of the start; below 1")
    if trainer.max_steps == 0:
        reject("trainer.max_steps", "trainer.max_steps", "0 trains nothing; -1 is no limit")


def _check_idle(config: Config, reject: _Reject) -> None:
    """Keys that would do nothing beside others."""
    if isinstance(config, PretrainingConfig):
        task = config.task
        if task.objective == "next" and task.masked_share != PretrainingTaskOptions().masked_share:
            reject("task.masked_share", "task.objective", "hides nothing with task.objective=next")
    if isinstance(config, ClassificationConfig):
        unfreeze = config.task.unfreeze
        if unfreeze != "gradual" and config.task.unfreeze_every > 1:
            rule = f"is for task.unfreeze=gradual; task.unfreeze={unfreeze}"
            reject("task.unfreeze_every", "task.unfreeze", rule)
        if unfreeze == "head" and config.task.layer_decay != 1:
            rule = "task.unfreeze=head trains the head alone; leave one of them out"
            reject("task.layer_decay", "task.unfreeze", rule)
        if config.data.fold and not config.data.folds:
            reject("data.fold", "data.folds", f"{config.data.fold} of no folds; set data.folds too")


def _check_patches(config: ForecastConfig, reject: _Reject) -> None:
    model, data = config.model, config.data
    if model.patch_length > data.context_length:
        rule = f"{model.patch_length} exceeds data.context_length={data.context_length}"
        reject("model.patch_length", "data.context_length", rule)
    if model.stride > model.patch_length:
        rule = f"{model.stride} exceeds model.patch_length={model.patch_length}; steps would be skipped"
        reject("model.stride", "model.patch_length", rule)


def _check_baseline(config: ForecastConfig, reject: _Reject) -> None:
    model = config.model
    if model.baseline != "none" and model.head == "quantile":
        reject("model.head", "model.baseline", f"model.baseline={model.baseline} has no quantiles; point")


def _check_series(config: ForecastConfig, reject: _Reject) -> None:
    data, task = config.data, config.task
    plain = ForecastDataOptions()
    if data.name != "table" and (given := [k for k in _TABLE_KEYS if getattr(data, k) != getattr(plain, k)]):
        reject(f"data.{given[0]}", "data.name", f"is for data.name=table; data.name={data.name}")
    for unknown in (name for name in data.calendar if name not in CALENDAR):
        reject("data.calendar", "data.calendar", f"{unknown!r} is none of {', '.join(CALENDAR)}")
    ends = data.train_end, data.validation_end
    for key, end in zip(("data.train_end", "data.validation_end"), ends, strict=True):
        share = isinstance(end, (int, float)) and not isinstance(end, bool) and 0 < end < 1
        if not (share or isinstance(end, str)):
            reject(key, key, f"takes a share of the rows between 0 and 1, or a time such as 2024-03-01; got {end}")
    if all(isinstance(end, float) for end in ends) and ends[0] >= ends[1]:
        reject("data.validation_end", "data.train_end", f"{ends[1]} must exceed data.train_end={ends[0]}")
    for key, levels in (("task.quantiles", task.quantiles), ("task.intervals", task.intervals)):
        if levels != sorted(set(levels)) or not all(0 < level < 1 for level in levels):
            reject(key, key, f"must ascend between 0 and 1; got {levels}")
    if config.model.head == "quantile" and (0.5 not in task.quantiles or len(task.quantiles) < 2):
        rule = f"must hold 0.5, which is the forecast, and one more; got {task.quantiles}"
        reject("task.quantiles", "model.head", rule)
    if config.model.head == "quantile" and task.loss != "mse":
        rule = f"model.head=quantile is trained by the pinball loss; task.loss={task.loss} is for model.head=point"
        reject("task.loss", "model.head", rule)


def _check_stem(model: SequenceModelOptions, reject: _Reject) -> None:
    if model.stem_pool == "none" and model.stride > model.stem_width:
        skips = f"{model.stride} exceeds model.stem_width={model.stem_width}; bases would be skipped"
        rule = f"{skips}. model.stem_pool=max sees them all"
        reject("model.stride", "model.stem_width", rule)


def _check_pretraining(config: PretrainingConfig, reject: _Reject) -> None:
    model, data, task = config.model, config.data, config.task
    if task.objective == "next" and model.direction != "forward":
        rule = f"{model.direction} sees the bases to come; task.objective=next takes model.direction=forward"
        reject("model.direction", "task.objective", rule)
    if data.segment % model.stride:
        reject("data.segment", "model.stride", f"{data.segment} is no multiple of model.stride={model.stride}")
    if data.stretch is not None and data.stretch < data.segment:
        reject("data.stretch", "data.segment", f"{data.stretch} is below data.segment={data.segment}")
    if task.objective == "masked" and data.stretch != data.segment:
        rule = "masked bases are guessed within a segment: set it to the same number as data.segment"
        reject("data.stretch", "data.segment", rule)
    if task.objective == "masked" and not task.masked_share:
        reject("task.masked_share", "task.objective", "0 hides nothing")
    for key in ("validation_records", "test_records"):
        if getattr(data, key) and data.unit == "end":
            rule = "holds out nothing with data.unit=end, which takes the ends of all records"
            reject(f"data.{key}", "data.unit", rule)
    named = data.validation_records and data.test_records
    if not data.fraction and not named:
        reject("data.fraction", "data.fraction", "0 leaves nothing to validate and test on")
    carried = task.objective == "next" and data.stretch != data.segment
    if carried and model.variant in ("mal", "mag", "transformer") and model.attention.window is None:
        rule = "full attention cannot be carried from segment to segment; a number, or data.stretch=data.segment"
        reject("model.attention.window", "data.stretch", rule)
    begins = model.variant in WITH_MEMORY and (model.memory.initial == "learned" or bool(model.num_persistent))
    if carried and begins and _is_ddp(config):
        rule = "memory is carried on: at most steps the one that a stretch begins with has no gradient"
        _check_strategy(config, reject, "data.stretch", rule)


def _is_ddp(config: Config) -> bool:
    return config.trainer.strategy == "auto" or config.trainer.strategy.startswith("ddp")


def _check_strategy(config: Config, reject: _Reject, key: str, why: str) -> None:
    """Several devices wait for the gradient of every parameter unless they are told that some have none."""
    several = config.trainer.devices * config.trainer.num_nodes > 1
    if several and config.trainer.strategy != _UNUSED:
        reject(key, "trainer.strategy", f"{why}; on several devices this takes trainer.strategy={_UNUSED}")


def _check_finetuning(config: ClassificationConfig, reject: _Reject) -> None:
    model, task = config.model, config.task
    if task.frozen_blocks > model.num_layers:
        rule = f"{task.frozen_blocks} of model.num_layers={model.num_layers} blocks"
        reject("task.frozen_blocks", "model.num_layers", rule)
    if task.unfreeze == "head" and task.frozen_blocks:
        reject("task.frozen_blocks", "task.unfreeze", "says nothing beside task.unfreeze=head; leave one of them out")
    if task.unfreeze == "gradual":
        _check_strategy(config, reject, "task.unfreeze", "gradual: not every parameter has a gradient at every step")
    if not task.layer_decay:
        reject("task.layer_decay", "task.layer_decay", "0 trains the head alone; task.unfreeze=head says so")
    if task.label_smoothing == 1:
        reject("task.label_smoothing", "task.label_smoothing", "1 leaves nothing of the labels; below 1")


def _check_sequences(config: ClassificationConfig, reject: _Reject) -> None:
    data = config.data
    if data.folds == 1 or (data.folds and data.fold >= data.folds):
        rule = f"must be 0 to data.folds - 1, of at least 2 folds; got {data.fold} of {data.folds}"
        reject("data.fold", "data.folds", rule)
    for key in ("validation_chromosomes", "test_chromosomes"):
        if getattr(data, key) and data.unit != "chromosome":
            rule = f"holds out nothing with data.unit={data.unit}; data.unit=chromosome does"
            reject(f"data.{key}", "data.unit", rule)
    if data.group is not None and data.unit != "group":
        reject("data.group", "data.unit", f"is parted with data.unit={data.unit}; data.unit=group keeps groups whole")
    if data.folds and data.unit == "chromosome":
        reject("data.folds", "data.unit", "data.unit=chromosome holds out those that are named; it has no folds")
    named = isinstance(data.bed, dict) and all(isinstance(file, str) for file in data.bed.values())
    if not (data.bed is None or isinstance(data.bed, str) or named):
        reject("data.bed", "data.bed", "takes a BED file, or {class: file, ...}")


def _check_memory(model: BackboneOptions, reject: _Reject) -> None:
    if model.dim % model.memory.num_heads:
        rule = f"{model.memory.num_heads} does not divide model.dim={model.dim}"
        reject("model.memory.num_heads", "model.dim", rule)
    if model.memory.gradient == "online" and model.memory.depth > 1:
        rule = f"online is for a matrix memory; model.memory.depth={model.memory.depth}"
        reject("model.memory.gradient", "model.memory.depth", rule)
    if model.memory.gradient == "online" and model.memory.residual:
        reject("model.memory.gradient", "model.memory.residual", "online does not go with model.memory.residual=true")
    if model.memory.bound_lr and (model.memory.depth > 1 or model.memory.residual):
        rule = "is for a plain matrix memory: model.memory.depth=1 and model.memory.residual=false"
        reject("model.memory.bound_lr", "model.memory.depth", rule)
    if model.memory.initial == "zero" and (model.memory.depth > 1 or model.memory.residual):
        rule = "zero is for a plain matrix memory: model.memory.depth=1 and model.memory.residual=false"
        reject("model.memory.initial", "model.memory.depth", rule)
    if model.variant == "delta" and (model.memory.depth > 1 or model.memory.residual):
        reject(
            "model.memory.depth", "model.variant", "the delta rule is for a plain matrix memory; depth=1, no residual"
        )


def _check_attention(model: BackboneOptions, reject: _Reject) -> None:
    heads = model.attention.num_heads
    if model.dim % heads:
        reject("model.attention.num_heads", "model.dim", f"{heads} does not divide model.dim={model.dim}")
    head_dim = model.dim // heads
    rotated = round(model.attention.rotary_share * head_dim)
    if rotated % 2:
        rule = f"{model.attention.rotary_share} of the {head_dim} features of a head is {rotated}; it must be even"
        reject("model.attention.rotary_share", "model.attention.num_heads", rule)
    if model.num_persistent and rotated == head_dim:
        rule = "1 leaves no features to persistent tokens; less than 1, or model.num_persistent=0"
        reject("model.attention.rotary_share", "model.num_persistent", rule)
