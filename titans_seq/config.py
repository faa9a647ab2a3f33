"""Merges YAML files and key=value overrides into one checked `Config`; an error is one line that names its source."""

import difflib
from collections.abc import Container, Iterable, Mapping
from copy import deepcopy
from dataclasses import Field, asdict, fields, is_dataclass
from functools import reduce
from itertools import groupby
from math import isinf
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args, get_origin

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from titans_seq import shipped
from titans_seq.errors import InputError
from titans_seq.schema import DEFAULT_TASK, SCHEMAS, Config
from titans_seq.schema.aliases import KEY_OF_SECTION, closest_choice, closest_key

EXTENDS = "extends"  # a file's key that names the files it builds on, relative to itself, or shipped ones
# Old names of keys to new ones, within a section: files and checkpoints written before the rename must still load.
RENAMED_KEYS = {"data.stretch": "data.stream_length"}

_TEXT_TYPES = tuple(str(each) for each in (str, str | None, list[str]))

_Texts = dict[str, Any]  # nested as a layer is, with values as written: 007, no, 1e5


class _Layer(NamedTuple):
    source: str  # file, checkpoint or command line
    content: dict[str, Any]
    texts: _Texts


def load_config(files: Iterable[str | Path] = (), overrides: Iterable[str] = ()) -> Config:
    """Load defaults, then files from left to right, then `key=value` overrides, each overriding what came before.

    Raises InputError for an unknown key, a value of the wrong type or out of bounds, or a file that cannot
    be read.
    """
    return _merge(_read_files(files) + _read_overrides(overrides))


def load_settings(settings: Iterable[str]) -> Config:
    """Load defaults, then files and `key=value` overrides, which contain `=`, in order; see `load_config`."""
    layers: list[_Layer] = []
    for is_override, group in groupby(settings, lambda each: "=" in each):
        layers += (_read_overrides if is_override else _read_files)(group)
    return _merge(layers)


def from_container(container: Mapping[str, Any], source: str, overrides: Iterable[str] = ()) -> Config:
    """Return the config that `to_container` turned into containers, with `key=value` overrides, checked again."""
    layers = [_Layer(source, deepcopy(dict(container)), {})]
    _rename_keys(layers[0])
    return _merge(layers + _read_overrides(overrides), stored=source)


def to_container(config: Config) -> dict[str, Any]:
    """Return the config as plain dicts, lists and scalars, for checkpoints and loggers."""
    return asdict(config)


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """Return the value of every key of a configuration or section, by full name such as `model.dim`."""
    values: dict[str, Any] = {}
    for f in fields(config):
        key, value = f"{prefix}{f.name}", getattr(config, f.name)
        values |= flatten(value, f"{key}.") if is_dataclass(value) else {key: value}
    return values


def differences(before: Config, after: Config, ignoring: Container[str] = ()) -> list[tuple[str, Any, Any]]:
    """Return keys whose values differ, each with both values; None for a key that one of the two does not have."""
    old, new = flatten(before), flatten(after)
    keys = [key for key in (*new, *(old.keys() - new.keys())) if key not in ignoring]
    return [(key, old.get(key), new.get(key)) for key in keys if old.get(key) != new.get(key)]


def merged(config: Config, other: Config, keys: Container[str], source: str) -> Config:
    """Return `config` with the values that `other` has for `keys`, checked again; errors name `source`."""
    container = to_container(config)
    for key, value in flatten(other).items():
        if key in keys:
            *sections, name = key.split(".")
            reduce(dict.__getitem__, sections, container)[name] = value
    return from_container(container, source=source)


def to_yaml(config: Config) -> str:
    """Return the resolved config as YAML, sections in the schema's order."""
    return OmegaConf.to_yaml(OmegaConf.structured(config))


def _read_files(files: Iterable[str | Path]) -> list[_Layer]:
    return [layer for file in files for layer in _read_layers(shipped.find(file), seen=())]


def _read_layers(file: shipped.ConfigFile, seen: tuple[Path, ...]) -> list[_Layer]:
    """Return the file's own layer, after those of the files it extends."""
    path, shown = file
    if path.resolve() in seen:
        raise InputError(f"{shown}: {EXTENDS} is circular: it leads back to the file itself")
    content = read_yaml(path)
    if "axes" in content:
        raise InputError(f"{shown}: is a suite of runs, not the configuration of one; use titans-seq benchmark {shown}")
    bases = content.pop(EXTENDS, None) or []
    bases = [bases] if isinstance(bases, str) else bases
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        raise InputError(f"{shown}: {EXTENDS}: must be the name of a file, or a list of names")
    layers: list[_Layer] = []
    for base in bases:
        layers += _read_layers(shipped.find(base, path.parent), (*seen, path.resolve()))
    texts = yaml.load(path.read_text(encoding="utf-8-sig"), yaml.BaseLoader)  # reads every scalar as a string
    layer = _Layer(shown, {str(key): value for key, value in content.items()}, texts)
    _rename_keys(layer)
    return [*layers, layer]


def _rename_keys(layer: _Layer) -> None:
    """Replace the keys of `RENAMED_KEYS` in a layer; raise InputError where the new name is set too."""
    for content in (layer.content, layer.texts):
        for section, old, new in _sections_with_renamed_keys(content):
            old_name, new_name = (key.rpartition(".")[2] for key in (old, new))
            if new_name in section:
                raise InputError(f"{layer.source}: {old}: renamed to {new}, which is set as well; remove {old}")
            section[new_name] = section.pop(old_name)


def _sections_with_renamed_keys(content: Any) -> list[tuple[dict[str, Any], str, str]]:
    """Sections of nested `content` that contain a key of `RENAMED_KEYS`, with its old and its new full name."""
    found = []
    for old, new in RENAMED_KEYS.items():
        *sections, name = old.split(".")
        section = reduce(_inner, sections, content)
        if isinstance(section, dict) and name in section:
            found.append((section, old, new))
    return found


def read_yaml(path: Path) -> dict[Any, Any]:
    """Return the mapping in a YAML file; nothing in it is executed. Raises InputError if it cannot be read."""
    try:
        content = OmegaConf.to_container(OmegaConf.load(path))
    except FileNotFoundError:
        raise InputError(f"{path}: no such config file") from None
    except (OSError, ValueError, yaml.YAMLError, OmegaConfBaseException) as error:
        raise InputError(f"{path}: not a readable YAML file: {_one_line(error)}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: a config file must have sections (data, model, ...); got a {type(content).__name__}")
    return content


def _read_overrides(overrides: Iterable[str]) -> list[_Layer]:
    """Return the overrides as one layer, because merging is slow."""
    joined = _Layer("command line", {}, {})
    for override in overrides:
        layer = _parse_override(override)
        for _, old, new in _sections_with_renamed_keys(layer.texts):
            raise InputError(f"command line: {old}: renamed to {new}")
        _update(joined.content, layer.content)
        _update(joined.texts, layer.texts)
    return [joined] if joined.content else []


def _update(into: dict[str, Any], layer: dict[str, Any]) -> None:
    for key, value in layer.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _update(into[key], value)
        else:
            into[key] = value


def _parse_override(override: str) -> _Layer:
    key, equals, text = override.partition("=")
    names = key.split(".")
    if not equals or not all(names):
        raise InputError(f"command line: {override!r} is not key=value, such as model.num_layers=3")
    is_yaml = text.lstrip().startswith(("[", "{", "'", '"'))  # else the value is the text itself
    try:
        value = yaml.load(text, yaml.BaseLoader) if is_yaml else text
        layer = OmegaConf.to_container(OmegaConf.from_dotlist([override]))
    except (yaml.YAMLError, OmegaConfBaseException, IndexError) as error:  # the last for a key of brackets alone
        if is_yaml:
            raise InputError(f"command line: {override}: {_one_line(error)}") from None
        layer = _nested(names, text)
    assert isinstance(layer, dict)
    return _Layer("command line", {str(key): value for key, value in layer.items()}, _nested(names, value))


def _nested(names: list[str], value: Any) -> dict[str, Any]:
    for name in reversed(names):
        value = {name: value}
    assert isinstance(value, dict)
    return value


def _merge(layers: list[_Layer], stored: str = "") -> Config:
    schema = _choose_schema(layers)
    merged = OmegaConf.structured(schema)
    sources: dict[str, str] = {}  # where each key was last written
    for source, layer, texts in layers:
        for key in _leaf_keys(layer, texts, schema(), source, schema):
            sources[key] = source
        try:
            merged.merge_with(layer)  # in place: OmegaConf.merge copies everything and takes five times as long
        except OmegaConfBaseException as error:
            raise InputError(_describe(error, source)) from None
    try:
        config = OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        raise InputError(_describe(error, sources.get(str(error.full_key), "config"))) from None
    assert isinstance(config, schema)
    _check_bounds(config, sources)
    _check_conflicts(config, sources, stored)
    return config


def _choose_schema(layers: list[_Layer]) -> type[Config]:
    """Return the schema of the last `task.name` in the layers, and set that name in all layers that have one."""
    chosen, sections = DEFAULT_TASK, []
    for source, layer, _ in layers:
        task = layer.get("task")
        if isinstance(task, dict) and "name" in task:
            chosen = task["name"]
            sections.append(task)
            if not isinstance(chosen, str) or chosen not in SCHEMAS:
                close = difflib.get_close_matches(str(chosen), SCHEMAS, n=1)
                hint = f"did you mean {close[0]}? " if close else ""
                raise InputError(f"{source}: task.name={chosen}: no such task; {hint}accepted: {', '.join(SCHEMAS)}")
    for task in sections:
        task["name"] = chosen
    return SCHEMAS[chosen]


def _leaf_keys(
    layer: dict[str, Any], texts: Any, section: Any, source: str, schema: type[Config], prefix: str = ""
) -> list[str]:
    """Return the full names of the keys that a layer sets; raise InputError for the first unknown one.

    YAML reads off and no as false and 007 as 7: for keys that take text, the value as written is restored.
    """
    accepted = {f.name: f for f in fields(section)}
    leaves = []
    for name, value in layer.items():
        key = f"{prefix}{name}"
        if name not in accepted:
            if "." in str(name) and key in _all_keys(schema()):
                raise InputError(f"{source}: {key}: in a file, write sections as nested keys, not with dots")
            hint = _hint(key, value, schema)
            raise InputError(f"{source}: {key}: no such key; {hint}accepted{_inside(prefix)}: {', '.join(accepted)}")
        inner = getattr(section, name)
        if is_dataclass(inner):
            if not isinstance(value, dict):
                names = ", ".join(f.name for f in fields(inner))
                meant = KEY_OF_SECTION.get(key) if isinstance(value, str) else None
                hint = f"did you mean {meant}={value}? " if meant else ""
                raise InputError(f"{source}: {key}: is a section; {hint}set one of its keys: {names}")
            leaves += _leaf_keys(value, _inner(texts, name), inner, source, schema, f"{key}.")
        else:
            if value == "???":  # OmegaConf treats it as missing and would keep the value before
                raise InputError(f"{source}: {key}: must have a value; got ???")
            if isinstance(value, bool) and "Literal" in str(accepted[name].type):
                layer[name] = "on" if value else "off"
            elif str(accepted[name].type) in _TEXT_TYPES:
                layer[name] = _as_written(value, _inner(texts, name))
            elif isinstance(value, dict):  # classes to files: a class may be named 0 or no
                written = _inner(texts, name)
                files = all(isinstance(each, str) for each in value.values())
                plain = isinstance(written, dict) and files and "<<" not in written  # YAML's merge key
                layer[name] = dict(written) if plain else {str(key): each for key, each in value.items()}
            choices = _choices(accepted[name])
            if isinstance(layer[name], str) and choices and layer[name] not in choices:
                choice = closest_choice(layer[name], choices)
                hint = f"did you mean {choice}? " if choice else ""
                raise InputError(
                    f"{source}: {key}: no such value {layer[name]!r}; {hint}accepted: {', '.join(choices)}"
                )
            leaves.append(key)
    return leaves


def _choices(f: "Field[Any]") -> tuple[str, ...]:
    """Return the choices of a key; empty if it accepts other values than these and null."""
    kinds = [f.type, *get_args(f.type)]
    return next((get_args(kind) for kind in kinds if get_origin(kind) is Literal), ())


def _choices_of(key: str, schema: type[Config]) -> tuple[str, ...]:
    section: Any = schema()
    *outer, name = key.split(".")
    for part in outer:
        section = getattr(section, part)
    return next(_choices(f) for f in fields(section) if f.name == name)


def _inner(texts: Any, name: Any) -> Any:
    """Return the entry `name` of a nested dict, or None if there is none."""
    return texts.get(str(name)) if isinstance(texts, dict) else None


def _as_written(value: Any, text: Any) -> Any:
    """Return the text as written of a key that takes text or a list of texts, where YAML parsed another type."""
    if isinstance(value, list) and isinstance(text, list) and len(value) == len(text):
        return [_as_written(each, own) for each, own in zip(value, text, strict=True)]
    return value if value is None or not isinstance(text, str) or value == "" else text


def _hint(key: str, value: Any, schema: type[Config]) -> str:
    """Suggest a key: this key of another task, else the closest one, with the choice closest to `value`."""
    for task, other in SCHEMAS.items():
        if key in _all_keys(other()):
            return f"it belongs to task.name={task}; "
    close = closest_key(key, _all_keys(schema()))
    if close is None:
        return ""
    choices = _choices_of(close, schema)
    choice = None if value in choices else closest_choice(value, choices)
    return f"did you mean {close}={choice}? " if choice else f"did you mean {close}? "


def _all_keys(section: Any, prefix: str = "") -> list[str]:
    keys = []
    for f in fields(section):
        key, value = f"{prefix}{f.name}", getattr(section, f.name)
        keys.append(key)
        if is_dataclass(value):
            keys += _all_keys(value, f"{key}.")
    return keys


def _inside(prefix: str) -> str:
    return f" in {prefix[:-1]}" if prefix else ""


def _describe(error: OmegaConfBaseException, source: str) -> str:
    key = f"{error.full_key}: " if error.full_key else ""
    return f"{source}: {key}{_one_line(error)}"


def _one_line(error: Exception) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
        return f"{error.problem}, line {error.problem_mark.line + 1}"
    return str(error).strip().partition("\n")[0] or type(error).__name__


def _check_bounds(section: Any, sources: dict[str, str], prefix: str = "") -> None:
    for f in fields(section):
        key, value = f"{prefix}{f.name}", getattr(section, f.name)
        if is_dataclass(value):
            _check_bounds(value, sources, f"{key}.")
            continue
        if value is None:
            continue
        low, high = f.metadata.get("low"), f.metadata.get("high")
        # Written so that NaN fails too.
        if (low is not None and not value >= low) or (high is not None and not value <= high):
            wanted = f"at least {low}" if high is None else f"between {low} and {high}"
            raise InputError(f"{sources.get(key, 'config')}: {key}={value}: must be {wanted}")
        if isinstance(value, float) and isinf(value):
            raise InputError(f"{sources.get(key, 'config')}: {key}={value}: must be finite")


def _check_conflicts(config: Config, sources: dict[str, str], stored: str) -> None:
    """Raise InputError for the first conflict, naming the source that wrote one of its keys.

    A key without effect is accepted from `stored`, the source of a trained model's own configuration.
    """
    for key, other, rule, no_effect in config.conflicts():
        if not (no_effect and stored and sources.get(key) == stored):
            source = sources.get(key) or sources.get(other, "config")  # at least one of the two is no default
            raise InputError(f"{source}: {key}: {rule}")
