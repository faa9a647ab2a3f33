"""Names that people type for configuration keys, and the nearest key to a name that is none."""

import difflib
from collections.abc import Collection

# Other tools' names for keys; the last word of a key, such as `learning_rate`, is found without a line here.
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
# A section given one value, `model=mac`, to the key that it is probably for.
KEY_OF_SECTION = {"model": "model.variant", "data": "data.name", "task": "task.name"}


def closest_key(name: str, known: Collection[str]) -> str | None:
    """The key that was probably meant: the same last word, another tool's name, else the closest spelling."""
    last = name.rpartition(".")[2]
    last_words = {key.rpartition(".")[2]: key for key in known}
    if same := [key for key in known if key.rpartition(".")[2] == last]:
        return same[0]
    if (meant := ALIASES.get(last.lower().replace("-", "_"))) in known:
        return meant
    alike = difflib.get_close_matches(last, last_words, n=1)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.9) or [last_words[word] for word in alike]
    return close[0] if close else None


def closest_choice(value: object, choices: Collection[object]) -> str | None:
    """The choice that was probably meant: the same letters in another case, else the closest spelling."""
    lowered = {str(choice).lower(): str(choice) for choice in choices}
    close = difflib.get_close_matches(str(value).lower(), lowered, n=1)
    return lowered[close[0]] if close else None
