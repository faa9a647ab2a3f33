"""Starting a classifier from what another run has learned."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from titans_seq.config import to_container
from titans_seq.errors import InputError
from titans_seq.experiment.run.checkpoint import shape_text
from titans_seq.schema import WITH_ATTENTION, WITH_MEMORY, ClassificationConfig
from titans_seq.system.checkpoint_files import read_checkpoint
from titans_seq.tasks import ClassificationTask

_KINDS = ("pretraining", "classification")
_AHEAD, _BACK = "backbone.ahead.", "backbone.back."


def load_pretrained(task: ClassificationTask, path: str) -> str:
    """Put the weights of the checkpoint `path` into the task's model, all but the head's; says what matched.

    Stem, backbone and the norm before the head are taken. A stack that was trained in one direction serves both; a
    classifier with a set of weights for each direction gets the same in both if the checkpoint has one.

    Raises InputError when the checkpoint is of another kind of task, or its model of another shape.
    """
    where = f"model.pretrained={path}"
    try:
        content = read_checkpoint(Path(path).expanduser())
    except InputError as error:
        raise InputError(f"model.pretrained: {error}") from None
    try:
        kind = content["hyper_parameters"]["config"]["task"]["name"]
        weights = {name.removeprefix("model."): w for name, w in content["state_dict"].items()}
    except (KeyError, TypeError, AttributeError):
        raise InputError(f"{where}: not a checkpoint of titans_seq: it holds no configuration") from None
    if kind not in _KINDS:
        raise InputError(f"{where}: of task.name={kind}; needed: {' or '.join(_KINDS)}")
    _check_options(task, content["hyper_parameters"]["config"]["model"], where)
    own = {name: w for name, w in task.model.state_dict().items() if not name.startswith("head.")}
    found = {name: _source(name, weights) for name in own}
    for name, w in own.items():
        ours, theirs = tuple(w.shape), None if found[name] is None else tuple(weights[str(found[name])].shape)
        if ours != theirs:
            raise InputError(
                f"{where}: {name} is {shape_text(theirs)} in the checkpoint, {shape_text(ours)} in the configured "
                "model; set the model's keys to those of the checkpoint's run (config.yaml in its folder)"
            )
    unused = _unused(weights, {source for source in found.values() if source})
    if unused:
        shape = shape_text(tuple(weights[unused[0]].shape))
        raise InputError(
            f"{where}: {unused[0]} is {shape} in the checkpoint, missing in the configured model; set the model's keys "
            "to those of the checkpoint's run (config.yaml in its folder)"
        )
    task.model.load_state_dict({name: weights[str(source)] for name, source in found.items()}, strict=False)
    return _report(path, kind, task.model.state_dict(), found)


def _source(name: str, weights: Mapping[str, Tensor]) -> str | None:
    """The checkpoint's name for the classifier's parameter `name`."""
    bare = name
    for prefix in (_AHEAD, _BACK):
        bare = bare.replace(prefix, "backbone.", 1) if bare.startswith(prefix) else bare
    inner = bare.removeprefix("backbone.")
    candidates = [name, *([bare, f"{_AHEAD}{inner}"] if bare.startswith("backbone.") else [])]
    return next((candidate for candidate in candidates if candidate in weights), None)


def _unused(weights: Mapping[str, Tensor], used: set[str]) -> list[str]:
    """Parameters of the checkpoint's model that go nowhere; its head is not expected to."""
    kept = ("stem.", "backbone.", "norm.")
    return [name for name in weights if name.startswith(kept) and name not in used]


def _check_options(task: ClassificationTask, trained: Mapping[str, Any], where: str) -> None:
    """Options that change what the same weights compute, and that no shape tells."""
    ours, plain = to_container(task.config)["model"], to_container(ClassificationConfig())["model"]
    for key in _telling_keys(ours["variant"]):
        # What a version did not know yet it did as the default does.
        theirs, own = _look_up(trained, key, _look_up(plain, key)), _look_up(ours, key)
        if theirs != own:
            raise InputError(
                f"{where}: trained with model.{key}={theirs}; the classifier has {own}; set it to the same"
            )


def _telling_keys(variant: str) -> list[str]:
    keys = ["variant", "stride", "stem_pool"]
    if variant in WITH_MEMORY:
        keys += ["memory.num_heads", "memory.chunk_size", "memory.forgetting"]
        if variant != "delta":  # which has a rule of its own
            keys += [f"memory.{key}" for key in ("gradient", "activation", "forget_to", "residual", "momentum")]
        keys.append("memory.bound_lr")
    if variant in WITH_ATTENTION:
        keys += ["attention.num_heads", "attention.rotary_share"]
        keys.append("segment_length" if variant == "mac" else "attention.window")
    return keys


def _look_up(options: Mapping[str, Any], key: str, default: Any = None) -> Any:
    """The value of a dotted key, `default` where there is none."""
    value: Any = options
    for part in key.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return default
        value = value[part]
    return value


def _report(path: str, kind: str, state: Mapping[str, Tensor], found: Mapping[str, str | None]) -> str:
    values = sum(state[name].numel() for name in found)
    fresh = [name for name in state if name not in found]
    copies = sum(1 for name in found if name.startswith(_BACK) and found[name] != name)
    twice = "; the backward stack is a copy of the forward one" if copies else ""
    total = sum(w.numel() for w in state.values())
    return (
        f"pre-trained weights of {path} ({kind}): {len(found)} of {len(state)} parameters loaded, {values:,} of "
        f"{total:,} values: stem, backbone, norm{twice}. Fresh: {', '.join(fresh)}"
    )
