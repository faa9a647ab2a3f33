"""Initialises a classifier with the weights of another run (transfer learning)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from titans_seq.config import to_container
from titans_seq.errors import InputError
from titans_seq.experiment.run.checkpoint import shape_text
from titans_seq.schema import MIXER_KEYS, WITH_ATTENTION, WITH_MEMORY, ClassificationConfig
from titans_seq.system.checkpoint_files import read_checkpoint
from titans_seq.system.run_folders import find_checkpoint
from titans_seq.tasks import ClassificationTask

_KINDS = ("pretraining", "classification")
_FORWARD, _BACKWARD = "backbone.ahead.", "backbone.back."


def load_pretrained(task: ClassificationTask, path: str) -> str:
    """Load the weights of a checkpoint, or of a run's best one, into the task's model, all but the head's.

    Stem, backbone and the norm before the head are loaded. A stack that was trained in one direction can be used for
    both; a classifier with separate weights for each direction gets a copy in both if the checkpoint has one stack.

    Returns a summary line. Raises InputError when the checkpoint is of another kind of task, or its model has other
    shapes or options.
    """
    where = f"model.pretrained={path}"
    try:
        checkpoint = find_checkpoint(path)
        content = read_checkpoint(checkpoint)
    except InputError as error:
        raise InputError(f"model.pretrained: {error}") from None
    try:
        kind = content["hyper_parameters"]["config"]["task"]["name"]
        weights = {name.removeprefix("model."): w for name, w in content["state_dict"].items()}
    except (KeyError, TypeError, AttributeError):
        raise InputError(f"{where}: not a titans_seq checkpoint: it contains no configuration") from None
    if kind not in _KINDS:
        raise InputError(f"{where}: checkpoint of task.name={kind}; expected {' or '.join(_KINDS)}")
    _check_options(task, content["hyper_parameters"]["config"]["model"], where)
    own = {name: w for name, w in task.model.state_dict().items() if not name.startswith("head.")}
    sources = {name: _source_name(name, weights) for name in own}
    for name, w in own.items():
        ours, theirs = tuple(w.shape), None if sources[name] is None else tuple(weights[str(sources[name])].shape)
        if ours != theirs:
            raise InputError(
                f"{where}: {name} is {shape_text(theirs)} in the checkpoint, {shape_text(ours)} in the configured "
                "model; set the model's keys to those of the checkpoint's run (config.yaml in its folder)"
            )
    unused = _unused(weights, {source for source in sources.values() if source})
    if unused:
        shape = shape_text(tuple(weights[unused[0]].shape))
        raise InputError(
            f"{where}: {unused[0]} is {shape} in the checkpoint, missing in the configured model; set the model's keys "
            "to those of the checkpoint's run (config.yaml in its folder)"
        )
    task.model.load_state_dict({name: weights[str(source)] for name, source in sources.items()}, strict=False)
    return _report(checkpoint, kind, task.model.state_dict(), sources)


def _source_name(name: str, weights: Mapping[str, Tensor]) -> str | None:
    """Return the name in the checkpoint of the classifier's parameter `name`, or None if it has none."""
    bare = name
    for prefix in (_FORWARD, _BACKWARD):
        bare = bare.replace(prefix, "backbone.", 1) if bare.startswith(prefix) else bare
    inner = bare.removeprefix("backbone.")
    candidates = [name, *([bare, f"{_FORWARD}{inner}"] if bare.startswith("backbone.") else [])]
    return next((candidate for candidate in candidates if candidate in weights), None)


def _unused(weights: Mapping[str, Tensor], used: set[str]) -> list[str]:
    """Return parameters of the checkpoint's stem, backbone or norm that the classifier does not use."""
    kept = ("stem.", "backbone.", "norm.")
    return [name for name in weights if name.startswith(kept) and name not in used]


def _check_options(task: ClassificationTask, trained: Mapping[str, Any], where: str) -> None:
    """Raise InputError where options differ that change what the weights compute without changing their shapes."""
    ours, plain = to_container(task.config)["model"], to_container(ClassificationConfig())["model"]
    for key in _keys_to_compare(ours["variant"]):
        # A checkpoint from before a key existed was trained as with the key's default.
        theirs, own = _look_up(trained, key, _look_up(plain, key)), _look_up(ours, key)
        if theirs != own:
            raise InputError(
                f"{where}: trained with model.{key}={theirs}; the classifier has {own}; use the same value"
            )


def _keys_to_compare(variant: str) -> list[str]:
    keys = ["variant", "stride", "stem_pool"]
    if variant in WITH_MEMORY:
        keys += ["memory.num_heads", "memory.chunk_size", "memory.forgetting"]
        if variant != "delta":  # its rule does not use these
            keys += [f"memory.{key}" for key in ("gradient", "activation", "forget_to", "residual", "momentum")]
        keys += ["memory.bound_lr", "memory.gates"]
    if variant in WITH_ATTENTION:
        keys += ["attention.num_heads", "attention.rotary_share"]
        keys.append("segment_length" if variant == "mac" else "attention.window")
    changes_speed_only = () if variant.startswith("ttt") else ("chunk_size",)
    keys += [f"mixer.{key}" for key in MIXER_KEYS.get(variant, ()) if key not in changes_speed_only]
    return keys


def _look_up(options: Mapping[str, Any], key: str, default: Any = None) -> Any:
    """Return the value of a dotted key, or `default` if it is missing."""
    value: Any = options
    for part in key.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return default
        value = value[part]
    return value


def _report(checkpoint: Path, kind: str, state: Mapping[str, Tensor], sources: Mapping[str, str | None]) -> str:
    values = sum(state[name].numel() for name in sources)
    new = [name for name in state if name not in sources]
    copies = sum(1 for name in sources if name.startswith(_BACKWARD) and sources[name] != name)
    copied = "; the backward stack is a copy of the forward one" if copies else ""
    total = sum(w.numel() for w in state.values())
    return (
        f"pre-trained weights of {checkpoint} ({kind}): {len(sources)} of {len(state)} parameters loaded, {values:,} "
        f"of {total:,} values: stem, backbone, norm{copied}. Randomly initialised: {', '.join(new)}"
    )
