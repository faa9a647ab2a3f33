"""Fuzzing: any input gives one error line with exit status 2, or success; never a traceback or a NaN result."""

import io
import math
import string
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.helpers import CONFIGS, CommandResult, refusal, run_cli
from titans_seq.config import load_config, to_container
from titans_seq.errors import InputError
from titans_seq.schema import SCHEMAS
from titans_seq.system.checkpoint_files import read_checkpoint, write_checkpoint

SYNTHETIC = CONFIGS / "forecasting" / "synthetic.yaml"
FUZZ = settings(
    max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats()
    | st.text(max_size=12)
    | st.sampled_from(["???", "${seed}", "${oc.env:HOME}", "!!python/object:os.system", "1e999", "off", "null", "[]"])
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
)


def keys() -> list[str]:
    """All configuration keys of all schemas."""
    names: list[str] = []

    def walk(section: dict[str, Any], prefix: str) -> None:
        for name, value in section.items():
            names.append(prefix + name)
            if isinstance(value, dict):
                walk(value, f"{prefix}{name}.")

    for schema in SCHEMAS.values():
        walk(to_container(schema()), "")
    return sorted(set(names))


def assert_error_line_or_success(answer: CommandResult) -> None:
    if answer.status:
        refusal(answer)
    assert "Traceback" not in answer.err


@FUZZ
@given(st.lists(st.tuples(st.sampled_from(keys()) | st.text(max_size=10), values), max_size=4))
def test_config_files(tmp_path: Path, entries: list[tuple[str, Any]]) -> None:
    content: dict[str, Any] = {}
    for name, value in entries:
        section = content
        *outer, last = name.split(".")
        for part in outer:
            inner = section.setdefault(part, {})
            section = inner if isinstance(inner, dict) else {}
        section[last] = value
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
    assert_error_line_or_success(run_cli("show-config", path))


@FUZZ
@given(st.lists(st.tuples(st.sampled_from(keys()) | st.text(max_size=10), scalars | st.text()), max_size=3))
@example([("[", None)])
def test_overrides(entries: list[tuple[str, Any]]) -> None:
    overrides = [f"{name}={value}" for name, value in entries]
    overrides = [override for override in overrides if not override.startswith("-")]  # options are parsed by argparse
    assert_error_line_or_success(run_cli("show-config", *overrides))


@FUZZ
@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_config_files_of_random_bytes(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "any.yaml"
    path.write_bytes(content)
    assert_error_line_or_success(run_cli("show-config", path))


cells = st.sampled_from(
    ["ACGT", "acgtn", "ACGU", "RYK", "", "NaN", "0", "1", "a", '"', "AC GT", ">x", "É", "=1+1"]
) | st.text(string.printable, max_size=8)


@FUZZ
@given(
    st.lists(st.lists(cells, min_size=1, max_size=4), max_size=8),
    st.sampled_from(
        ["sequence,label", "sequence,label,group", "label", "", "sequence,label,label", "\ufeffsequence,label"]
    ),
)
def test_tables_of_sequences(tmp_path: Path, rows: list[list[str]], head: str) -> None:
    path = tmp_path / "table.csv"
    path.write_text("\n".join([head, *(",".join(row) for row in rows)]), encoding="utf-8")
    assert_error_line_or_success(run_cli("audit", path))


@FUZZ
@given(st.lists(st.tuples(st.sampled_from([">", ">a label=x", ">b label=y", ">a", "", ";"]), cells), max_size=10))
def test_fasta_files(tmp_path: Path, records: list[tuple[str, str]]) -> None:
    path = tmp_path / "any.fa"
    path.write_text("\n".join(line for record in records for line in record), encoding="utf-8")
    assert_error_line_or_success(run_cli("audit", path))


@pytest.fixture(scope="module")
def checkpoint() -> bytes:
    """The content of a small checkpoint file."""
    content = {"state_dict": {"w": torch.arange(50.0)}, "hyper_parameters": {"config": to_container(load_config())}}
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


@FUZZ
@given(st.data())
def test_checkpoints(tmp_path: Path, checkpoint: bytes, data: st.DataObject) -> None:
    path = tmp_path / "any.ckpt"
    damaged = bytearray(checkpoint)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(damaged) - 1))
        damaged[place] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(damaged[: data.draw(st.integers(0, len(damaged)) | st.just(len(damaged)))]))
    try:
        read = read_checkpoint(path)
    except InputError as error:
        message = str(error)
    else:  # the changed bytes hold no data: they are the archive's padding or dates
        assert torch.equal(read["state_dict"]["w"], torch.arange(50.0))
        assert read["hyper_parameters"]["config"] == to_container(load_config())
        return
    assert "\n" not in message
    assert str(path) in message


@FUZZ
@given(values)
def test_checkpoints_with_unexpected_content(tmp_path: Path, value: Any) -> None:
    path = tmp_path / "any.ckpt"
    write_checkpoint({"hyper_parameters": value, "state_dict": value}, path)
    assert "any.ckpt" in refusal(run_cli("test", path))
    write_checkpoint({"hyper_parameters": {"config": value}, "state_dict": {}}, path)
    refusal(run_cli("test", path))


def test_zip_archive_that_is_not_a_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "any.ckpt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("any/data.pkl", b"cos\nsystem\n(S'echo hello'\ntR.")
    assert "cut short, damaged or not a checkpoint" in refusal(run_cli("test", path))


@pytest.mark.parametrize("cell", ["nan", "inf", "-inf", "1e400", "", "x", "\uff11\uff12"])
def test_non_numeric_cell_is_an_error_before_training(tmp_path: Path, cell: str) -> None:
    rows = [f"2024-01-{1 + hour // 24:02} {hour % 24:02}:00,{math.sin(hour)}" for hour in range(400)]
    rows[200] = rows[200].rpartition(",")[0] + f",{cell}"
    path = tmp_path / "series.csv"
    path.write_text("\n".join(["date,load", *rows]) + "\n")
    folder = tmp_path / "run"
    line = refusal(run_cli("fit", SYNTHETIC, f"data.name={path}", f"run.dir={folder}"))
    assert str(path) in line or "data.name" in line
    assert not folder.exists()
