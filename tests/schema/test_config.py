"""Configuration: accepted values, precedence of files and overrides, and one-line error messages."""

from pathlib import Path

import pytest
import yaml

from tests.helpers import CONFIGS
from titans_seq.config import from_container, load_config, load_settings, to_container, to_yaml
from titans_seq.errors import InputError
from titans_seq.schema import ClassificationConfig, ForecastingConfig

# Suites and sweeps have other keys; tests/studies covers them.
SHIPPED = sorted(
    path for path in CONFIGS.rglob("*.yaml") if not path.stem.endswith("suite") and path.parent.name != "sweeps"
)


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def nested(key: str, value: str) -> str:
    """Return the override `key=value` as a YAML file."""
    text, indent = "", ""
    for part in key.split("."):
        text += f"{indent}{part}:\n"
        indent += "  "
    return f"{text[:-1]} {value}\n"


def error_line(files: list[Path], overrides: list[str]) -> str:
    with pytest.raises(InputError) as caught:
        load_config(files, overrides)
    message = str(caught.value)
    assert "\n" not in message
    return message


# name: (key, value, parts that the error line must contain besides the source and the key)
FAULTS = {
    "misspelt key": ("model.num_layer", "3", ["did you mean model.num_layers?", "patch_length", "channel_mixing"]),
    "misspelt deep key": ("model.memory.chunksize", "8", ["did you mean model.memory.chunk_size?", "forget_to"]),
    "key of another section": ("model.horizon", "8", ["did you mean data.horizon?", "accepted in model"]),
    "misspelt section": ("modle", "{dim: 8}", ["did you mean model?", "seeds, resume, data, model, task, trainer"]),
    "key without its section": ("horizon", "8", ["did you mean data.horizon?"]),
    "text for a number": ("model.num_layers", "three", ["'three'", "nteger"]),
    "fraction for an integer": ("trainer.max_epochs", "1.5", ["1.5", "nteger"]),
    "list for a number": ("model.dim", "[1, 2]", ["nteger"]),
    "null for a number": ("model.dim", "null", ["None", "int"]),
    "text for a boolean": ("model.channel_mixing", "maybe", ["'maybe'", "bool"]),
    "bad choice": ("task.loss", "l1", ["'l1'", "mse", "mae", "huber"]),
    "bad choice of data": ("data.name", "ETTH1", ["'ETTH1'", "ETTh1", "ETTm2", "synthetic"]),
    "bad choice of W&B": ("logging.wandb", "of", ["'of'", "online", "offline", "off"]),
    "below the bound": ("data.horizon", "0", ["0", "must be at least 1"]),
    "above the bound": ("model.dropout", "1.5", ["1.5", "must be between 0 and 1"]),
    "not a number": ("task.learning_rate", ".nan", ["nan", "must be at least 0"]),
    "infinite": ("task.learning_rate", ".inf", ["inf", "must be finite"]),
    "no value yet": ("model.dim", "???", ["must have a value"]),
    "scalar for a section": ("model", "3", ["is a section", "num_layers", "memory"]),
    "scalar for an inner section": ("model.memory", "3", ["is a section", "num_heads", "chunk_size"]),
    "unknown interpolation": ("model.dim", "${data.hidden}", ["data.hidden", "not found"]),
    "unknown resolver": ("model.dim", "${eval:1+1}", ["eval"]),
    "a deep memory at zero": (
        "model.memory",
        "{initial: zero, depth: 2}",
        ["initial", "zero requires a matrix memory"],
    ),
    "a deep delta rule": (
        "model",
        "{variant: delta, memory: {depth: 2}}",
        ["depth", "model.variant=delta requires model.memory.depth=1"],
    ),
    "heads that do not divide the keys": (
        "model",
        "{variant: gla, mixer: {num_heads: 3}}",
        ["model.mixer.num_heads", "3 does not divide the width of the keys, 0.5 x model.dim = 16"],
    ),
    "heads that do not divide the values": (
        "model",
        "{variant: mamba2, mixer: {num_heads: 8, value_ratio: 0.5, state_size: 3}, dim: 24}",
        ["model.mixer.num_heads", "8 does not divide the width of the values, 0.5 x model.dim = 12"],
    ),
    "an odd width of a head's keys": (
        "model",
        "{variant: retnet, mixer: {num_heads: 32}}",
        ["model.mixer.num_heads", "retnet requires an even width of a head's keys; got 1"],
    ),
    "another mixer's key": (
        "model",
        "{variant: gated_delta_net, mixer: {steps: 3}}",
        ["model.mixer.steps", "has no effect with model.variant=gated_delta_net"],
    ),
    "persistent tokens of a mixer": (
        "model",
        "{variant: mamba2, num_persistent: 2}",
        ["model.num_persistent", "has no effect with model.variant=mamba2"],
    ),
    "attention heads": ("model", "{variant: mal, attention: {num_heads: 5}}", ["num_heads", "5", "model.dim=32"]),
    "odd rotary share": ("model", "{variant: mac, attention: {rotary_share: 0.4}}", ["rotary_share", "even"]),
    "no room for persistent tokens": (
        "model",
        "{variant: mag, num_persistent: 1, attention: {rotary_share: 1.0}}",
        ["rotary_share", "persistent tokens"],
    ),
    "two keys that disagree": ("model.memory.num_heads", "5", ["5", "model.dim=32"]),
    "a table's key for another set": ("data.id", "store", ["only applies to data.name=table", "data.name=synthetic"]),
    "no feature of the calendar": ("data.calendar", "[weekday]", ["unknown 'weekday'", "day_of_week"]),
    "no share of the rows": ("data", "{name: table, train_end: 70}", ["train_end", "between 0 and 1", "got 70"]),
    "no rows left": ("data", "{name: table, train_end: 0}", ["train_end", '"-2 horizons"; got 0']),
    "rows of validation before training ends": (
        "data",
        "{name: table, horizon: 7, train_end: -14, validation_end: -2 horizons}",
        ["validation_end", "-2 horizons must exceed data.train_end=-14"],
    ),
    "validation before training ends": (
        "data",
        "{name: table, train_end: 0.8, validation_end: 0.7}",
        ["validation_end", "0.7 must exceed data.train_end=0.8"],
    ),
    "quantiles in disorder": (
        "task.quantiles",
        "[0.9, 0.5]",
        ["must be ascending numbers between 0 and 1; got [0.9, 0.5]"],
    ),
    "an interval of everything": ("task.intervals", "[0.8, 1.0]", ["must be ascending numbers between 0 and 1"]),
    "patch longer than the context": ("model.patch_length", "400", ["400", "data.context_length=336"]),
}


def test_quantile_head_requires_the_median_and_pinball_loss() -> None:
    message = error_line([], ["model.head=quantile", "task.quantiles=[0.1, 0.9]"])
    rule = "must include 0.5 (the point forecast) and at least one more level; got [0.1, 0.9]"
    assert message == f"command line: task.quantiles: {rule}"
    message = error_line([], ["model.head=quantile", "task.loss=mae"])
    assert message.startswith(
        "command line: task.loss: mae only applies to model.head=point; model.head=quantile trains by the pinball loss"
    )


# The same for task.name=classification.
CLASSIFICATION_FAULTS = {
    "key of another task": ("data.horizon", "8", ["it belongs to task.name=forecasting", "max_length"]),
    "misspelt key": ("model.stem_widht", "3", ["no such key", "did you mean model.stem_width?"]),
    "bad choice": ("model.strand", "two", ["'two'", "both_averaged", "invariant"]),
    "bad metric": ("task.monitor", "mse", ["'mse'", "mcc", "auroc"]),
    "stride beyond the stem": ("model", "{stride: 3, stem_width: 2}", ["stride", "3", "model.stem_width=2"]),
    "nothing left of the labels": ("task.label_smoothing", "1", ["below 1"]),
    "nothing left of the features": ("model.dropout", "1", ["below 1"]),
    "nothing learned": ("trainer.ema_decay", "1", ["below 1"]),
    "fold beyond the folds": ("data", "{fold: 5, folds: 5}", ["fold", "got fold 5 of 5"]),
    "fold of nothing": ("data.fold", "1", ["1 requires data.folds"]),
    "no pace without gradual": (
        "task.unfreeze_every",
        "2",
        ["only applies to task.unfreeze=gradual; got task.unfreeze=all"],
    ),
    "one fold": ("data", "{fold: 0, folds: 1}", ["fold", "at least 2 folds"]),
    "no BED file": ("data.bed", "3", ["must be a BED file"]),
    "no list": ("data.test_chromosomes", "chr1", ["test_chromosomes"]),
    "rule of all tasks": ("model.memory.num_heads", "5", ["5", "model.dim=32"]),
}


@pytest.mark.parametrize(("key", "value", "parts"), CLASSIFICATION_FAULTS.values(), ids=CLASSIFICATION_FAULTS.keys())
def test_error_of_a_classification_key(key: str, value: str, parts: list[str]) -> None:
    message = error_line([], ["task.name=classification", f"{key}={value}"])
    assert message.startswith(f"command line: {key}")
    assert all(part in message for part in parts), message


# The same for task.name=pretraining.
PRETRAINING_FAULTS = {
    "full attention carried": (
        "model",
        "{variant: mal, attention: {window: null}}",
        ["cannot be carried over segments"],
    ),
    "nothing is hidden": ("task.masked_share", "0.3", ["has no effect with task.objective=next"]),
    "nothing held out": ("data", "{fraction: 0, validation_records: [a]}", ["data.fraction", "0 would leave nothing"]),
}


@pytest.mark.parametrize(("key", "value", "parts"), PRETRAINING_FAULTS.values(), ids=PRETRAINING_FAULTS.keys())
def test_error_of_a_pretraining_key(key: str, value: str, parts: list[str]) -> None:
    message = error_line([], ["task.name=pretraining", "model.direction=forward", f"{key}={value}"])
    assert message.startswith(f"command line: {key}")
    assert all(part in message for part in parts), message


def test_stored_configurations_may_contain_keys_without_effect() -> None:
    cases = {
        "task.unfreeze_every=2": "",
        "task.layer_decay=0.8": "task.unfreeze=head",
        "data.fold=1": "",
        "task.masked_share=0.3": "task.name=pretraining model.direction=forward",
        "task.state_passing=0.3": "task.name=pretraining task.objective=masked data.segment=512 data.stream_length=512",
    }
    for override, others in cases.items():
        config = load_config([], ["task.name=classification", *others.split()])
        container = to_container(config)
        key, _, value = override.partition("=")
        section, name = key.split(".")
        container[section][name] = yaml.safe_load(value)
        assert to_container(from_container(container, source="old.ckpt")) == container
        with pytest.raises(InputError, match=rf"command line: {key}: "):
            from_container(to_container(config), source="old.ckpt", overrides=[override])


def test_named_records_need_no_fraction() -> None:
    named = ["data.fraction=0", "data.validation_records=[a]", "data.test_records=[b]"]
    assert load_config([], ["task.name=pretraining", "model.direction=forward", *named]).data.fraction == 0


def test_full_attention_is_accepted_for_streams_of_one_segment() -> None:
    alone = ["data.segment=512", "data.stream_length=512", "model.variant=transformer", "model.attention.window=null"]
    pretraining = ["task.name=pretraining", "model.direction=forward", *alone]
    load_config([], pretraining)
    with pytest.raises(InputError, match=r"model.attention.window.*task.state_passing=0"):
        load_config([], [*pretraining, "task.state_passing=0.5"])


@pytest.mark.parametrize(
    ("value", "part"), [("clasification", "did you mean classification?"), ("3", "accepted: forecasting"), ("null", "")]
)
def test_error_of_an_unknown_task_names_the_file(tmp_path: Path, value: str, part: str) -> None:
    path = write(tmp_path / "bad.yaml", f"task: {{name: {value}}}\n")
    message = error_line([path], ["seed=1"])
    assert message.startswith(f"{path}: task.name=")
    assert part in message


def test_last_task_name_selects_the_schema(tmp_path: Path) -> None:
    path = write(tmp_path / "a.yaml", "task: {name: classification}\nmodel: {dim: 64}\n")
    assert isinstance(load_config([path]), ClassificationConfig)
    config = load_config([path], ["task.name=forecasting"])
    assert isinstance(config, ForecastingConfig)
    assert config.model.dim == 64
    assert load_config([]) == load_config([], ["task.name=forecasting"]) == ForecastingConfig()


def test_container_without_a_task_name_is_a_forecasting_config() -> None:
    container = to_container(ForecastingConfig())
    del container["task"]["name"]
    assert from_container(container, source="old.ckpt") == ForecastingConfig()


@pytest.mark.parametrize(("key", "value", "parts"), FAULTS.values(), ids=FAULTS.keys())
def test_error_of_an_override_names_the_key(key: str, value: str, parts: list[str]) -> None:
    message = error_line([], ["model.dim=32", f"{key}={value}"])
    assert message.startswith(f"command line: {key}")
    assert all(part in message for part in parts), message


@pytest.mark.parametrize(("key", "value", "parts"), FAULTS.values(), ids=FAULTS.keys())
def test_error_in_a_file_names_the_file(tmp_path: Path, key: str, value: str, parts: list[str]) -> None:
    good = write(tmp_path / "good.yaml", "model:\n  dim: 32\n")
    bad = write(tmp_path / "bad.yaml", nested(key, value))
    later = write(tmp_path / "later.yaml", "task:\n  warmup_steps: 1\n")
    message = error_line([good, bad, later], [])
    assert message.startswith(f"{bad}: {key}")
    assert all(part in message for part in parts), message


def test_error_of_two_inconsistent_keys_names_the_file_that_sets_one(tmp_path: Path) -> None:
    bad = write(tmp_path / "bad.yaml", "model: {patch_length: 8}\n")  # below the default stride
    assert error_line([bad], []).startswith(f"{bad}: model.stride: 16 exceeds model.patch_length=8")


@pytest.mark.parametrize("override", ["=3", "model..dim=3", ".dim=3", "model.dim", ""])
def test_override_must_be_key_value(override: str) -> None:
    message = error_line([], [override])
    assert message.startswith("command line: ")
    assert repr(override) in message
    assert "key=value" in message


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("- model\n", "list"),
        ("model: [\n", "line 2"),
        ("model:\n  dim: 3\n  dim: 4\n", "duplicate key dim, line 3"),
        ("model:\n\tdim: 3\n", "line 2"),
        ("extends: 3\n", "extends"),
        ("extends: {a: b.yaml}\n", "extends"),
        ("model:\n  dim: !!python/object/apply:os.getpid []\n", "line 2"),  # nothing in a file is executed
    ],
)
def test_error_of_an_invalid_config_file(tmp_path: Path, text: str, part: str) -> None:
    path = write(tmp_path / "bad.yaml", text)
    message = error_line([path], [])
    assert message.startswith(f"{path}: ")
    assert part in message


def test_error_of_a_binary_file(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_bytes(b"\xff\xfe\x00model")
    assert str(path) in error_line([path], [])


@pytest.mark.parametrize("kind", ["missing", "folder"])
def test_error_of_a_missing_file_or_folder(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "gone.yaml" if kind == "missing" else tmp_path
    assert error_line([path], []).startswith(f"{path}: ")


def test_later_files_and_overrides_take_precedence_key_by_key(tmp_path: Path) -> None:
    first = write(tmp_path / "first.yaml", "model: {dim: 64, num_layers: 5, patch_length: 8}\n")
    second = write(tmp_path / "second.yaml", "model: {num_layers: 6, patch_length: 9}\n")
    overrides = ["model.patch_length=10", "model.patch_length=17"]
    model = load_config([first, second], overrides).model
    assert (model.dim, model.num_layers, model.patch_length) == (64, 6, 17)
    assert model.ffn_expansion == ForecastingConfig().model.ffn_expansion
    assert load_config([second, first], overrides).model.num_layers == 5


def test_extends_is_relative_to_its_file_and_nested(tmp_path: Path) -> None:
    write(tmp_path / "base" / "root.yaml", "model: {dim: 64, num_layers: 3}\nseed: 1\n")
    write(tmp_path / "base" / "middle.yaml", "extends: root.yaml\nmodel: {num_layers: 4}\nseed: 2\n")
    write(tmp_path / "other.yaml", "task: {loss: mae}\nseed: 3\n")
    top = write(tmp_path / "top" / "top.yaml", "extends: [../base/middle.yaml, ../other.yaml]\nmodel: {stride: 4}\n")
    config = load_config([top])
    assert (config.model.dim, config.model.num_layers, config.model.stride) == (64, 4, 4)
    assert (config.task.loss, config.seed) == ("mae", 3)


def test_error_in_an_extended_file_names_that_file(tmp_path: Path) -> None:
    write(tmp_path / "base.yaml", "model: {dmi: 64}\n")
    top = write(tmp_path / "top.yaml", "extends: base.yaml\n")
    assert f"{tmp_path / 'base.yaml'}: model.dmi" in error_line([top], [])


def test_circular_extends_is_an_error(tmp_path: Path) -> None:
    write(tmp_path / "a.yaml", "extends: b.yaml\n")
    write(tmp_path / "b.yaml", "extends: a.yaml\n")
    message = error_line([tmp_path / "a.yaml"], [])
    assert "a.yaml" in message
    assert "extends" in message


def test_shared_base_file_is_not_circular(tmp_path: Path) -> None:
    write(tmp_path / "root.yaml", "seed: 5\n")
    for name in ("a", "b"):
        write(tmp_path / f"{name}.yaml", "extends: root.yaml\n")
    top = write(tmp_path / "top.yaml", "extends: [a.yaml, b.yaml]\n")
    assert load_config([top]).seed == 5


def test_error_of_a_missing_base_names_its_path(tmp_path: Path) -> None:
    top = write(tmp_path / "top.yaml", "extends: nowhere.yaml\n")
    assert str(tmp_path / "nowhere.yaml") in error_line([top], [])


@pytest.mark.parametrize(("text", "wanted"), [("off", "off"), ("'off'", "off"), ("offline", "offline"), ("null", None)])
def test_yaml_reading_off_as_false_does_not_turn_logging_on(tmp_path: Path, text: str, wanted: str | None) -> None:
    path = write(tmp_path / "a.yaml", f"logging:\n  wandb: {text}\n")
    assert load_config([path], []).logging.wandb == wanted
    assert load_config([], [f"logging.wandb={text}"]).logging.wandb == wanted
    # The printed YAML must be read back to the same value.
    again = write(tmp_path / "again.yaml", to_yaml(load_config([path])))
    assert load_config([again]).logging.wandb == wanted


def test_interpolation_uses_a_later_override_of_its_source(tmp_path: Path) -> None:
    path = write(tmp_path / "a.yaml", "data: {context_length: 48}\nmodel: {patch_length: '${data.context_length}'}\n")
    assert load_config([path], ["data.context_length=96"]).model.patch_length == 96


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: str(p.relative_to(CONFIGS)))
def test_shipped_configs_survive_a_round_trip(tmp_path: Path, path: Path) -> None:
    config = load_config([path])
    container = to_container(config)
    assert from_container(container, source="test") == config
    assert yaml.safe_load(to_yaml(config)) == container
    assert load_config([write(tmp_path / "again.yaml", to_yaml(config))]) == config


def test_the_shipped_configs_are_found() -> None:
    assert {"forecasting", "genomics", "model"} <= {path.parent.name for path in SHIPPED}


def test_a_container_is_checked_like_a_file() -> None:
    container = to_container(ForecastingConfig())
    container["model"]["num_layer"] = 2
    with pytest.raises(InputError, match=r"^old\.ckpt: model\.num_layer: no such key; did you mean model\.num_layers"):
        from_container(container, source="old.ckpt")


def test_loading_does_not_modify_the_container() -> None:
    container = to_container(ForecastingConfig())
    container["logging"]["wandb"] = False
    assert from_container(container, source="test").logging.wandb == "off"
    assert container["logging"]["wandb"] is False


def test_former_key_names_are_read_from_files_and_checkpoints(tmp_path: Path) -> None:
    config = load_config([], ["task.name=pretraining", "model.direction=forward", "data.stream_length=1024"])
    container = to_container(config)
    container["data"]["stretch"] = container["data"].pop("stream_length")
    assert from_container(container, source="old.ckpt") == config
    assert "stretch" in container["data"]
    path = write(tmp_path / "config.yaml", yaml.safe_dump(container))
    assert load_config([path]) == load_settings([str(path)]) == config
    assert load_config([path], ["data.stream_length=null"]).data.stream_length is None
    container["data"]["stream_length"] = 2048
    with pytest.raises(InputError, match=r"^old\.ckpt: data\.stretch: renamed to data\.stream_length, which is set as"):
        from_container(container, source="old.ckpt")


@pytest.mark.parametrize("override", ["data.stretch=512", "data.stretch=null", "data={stretch: 512}"])
def test_error_of_a_former_key_name_on_the_command_line_gives_the_new_name(override: str) -> None:
    message = "command line: data.stretch: renamed to data.stream_length"
    assert error_line([], ["task.name=pretraining", override]) == message
    with pytest.raises(InputError, match=f"^{message}$"):
        from_container(to_container(ForecastingConfig()), source="old.ckpt", overrides=[override])


def test_former_key_name_within_a_value_is_not_an_error_about_renaming() -> None:
    assert error_line([], ["data=stretch"]).startswith("command line: data: is a section")


TABLE = ["data.name=table", "data.path=x.csv"]


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("data.target=[NO,CO, 1e5]", ["NO", "CO", "1e5"]),
        ("data.id=no", "no"),
        ("data.id='no'", "no"),
        ("data.id=null", None),
        ("data.time_format=%d.%m.%Y %H:%M", "%d.%m.%Y %H:%M"),
        ("run.dir=007", "007"),
        ("run.dir=/tmp/my run #1", "/tmp/my run #1"),
        ("run.dir=a: b", "a: b"),
        ("resume=true", "true"),
    ],
)
def test_text_values_are_not_converted(override: str, value: object) -> None:
    found: object = load_config([], [*TABLE, "data.target=[y]", override])
    for name in override.partition("=")[0].split("."):
        found = getattr(found, name)
    assert found == value


def test_text_values_in_a_file_are_not_converted(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("experiment: 001\ndata:\n  name: table\n  path: x.csv\n  id: no\n  target: [NO, 'CO', 010]\n")
    config = load_config([path])
    assert isinstance(config, ForecastingConfig)
    assert (config.experiment, config.data.id, config.data.target) == ("001", "no", ["NO", "CO", "010"])


def test_files_and_overrides_are_merged_in_their_order(tmp_path: Path) -> None:
    path = tmp_path / "big.yaml"
    path.write_text("model: {dim: 128, num_layers: 4}\n")
    config = load_settings(["model.dim=64", "seed=1", str(path), "model.num_layers=1"])
    assert (config.model.dim, config.model.num_layers, config.seed) == (128, 1, 1)


@pytest.mark.parametrize("as_override", [False, True])
def test_class_names_are_not_converted(tmp_path: Path, as_override: bool) -> None:
    files = "{0: a.bed, no: b.bed, 007: c.bed, pos: d.bed}"
    data = "" if as_override else f"data: {{bed: {files}}}\n"
    path = write(tmp_path / "a.yaml", "task: {name: classification}\n" + data)
    config = load_config([path], [f"data.bed={files}"] if as_override else [])
    assert isinstance(config, ClassificationConfig)
    assert config.data.bed == {"0": "a.bed", "no": "b.bed", "007": "c.bed", "pos": "d.bed"}
    assert from_container(to_container(config), source="a.ckpt") == config
