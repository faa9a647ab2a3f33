"""Common other names of configuration keys, and search for the key closest to an unknown name."""

import difflib
from collections.abc import Collection

# Names of keys in other tools. The last part of a key, such as `learning_rate`, is found without an entry here.
ALIASES = {
    "lr": "task.learning_rate",
    "wd": "task.weight_decay",
    "warmup": "task.warmup_steps",
    "epochs": "trainer.max_epochs",
    "num_epochs": "trainer.max_epochs",
    "n_epochs": "trainer.max_epochs",
    "steps": "trainer.max_steps",
    "gpus": "trainer.devices",
    "device": "trainer.accelerator",
    "bs": "data.batch_size",
    "batch": "data.batch_size",
    "dataset": "data.name",
    "csv": "data.path",
    "file": "data.path",
    "lookback": "data.context_length",
    "seq_len": "data.context_length",
    "input_size": "data.context_length",
    "h": "data.horizon",
    "pred_len": "data.horizon",
    "prediction_length": "data.horizon",
    "d_model": "model.dim",
    "hidden_size": "model.dim",
    "layers": "model.num_layers",
    "n_layers": "model.num_layers",
    "arch": "model.variant",
    "output_dir": "run.dir",
    "out_dir": "run.dir",
}
# The key meant by a section with a single value, such as `model=mac`.
KEY_OF_SECTION = {"model": "model.variant", "data": "data.name", "task": "task.name"}


def closest_key(name: str, known: Collection[str]) -> str | None:
    """Return the known key with the same last part, or that another tool calls `name`, or with the closest spelling."""
    last = name.rpartition(".")[2]
    last_parts = {key.rpartition(".")[2]: key for key in known}
    if same := [key for key in known if key.rpartition(".")[2] == last]:
        return same[0]
    if (meant := ALIASES.get(last.lower().replace("-", "_"))) in known:
        return meant
    similar = difflib.get_close_matches(last, last_parts, n=1)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.9) or [last_parts[part] for part in similar]
    return close[0] if close else None


def closest_choice(value: object, choices: Collection[object]) -> str | None:
    """Return the choice that differs from `value` in case only, or the one with the closest spelling."""
    lowered = {str(choice).lower(): str(choice) for choice in choices}
    close = difflib.get_close_matches(str(value).lower(), lowered, n=1)
    return lowered[close[0]] if close else None
