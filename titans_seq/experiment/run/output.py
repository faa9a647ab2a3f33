"""Result tables: output paths are checked first, files are written atomically, inputs are never overwritten."""

import os
from pathlib import Path
from typing import Any

import polars as pl

from titans_seq.errors import InputError
from titans_seq.schema import Config
from titans_seq.system.files import replacing

_TIME_FORMAT = "%Y-%m-%d %H:%M:%S%.f"
_TABLES = (".csv", ".parquet", ".pq")


def check_writable(out: Path, option: str = "--out") -> None:
    """Raise InputError when a file cannot be written to `out`, which the command line's `option` names."""
    if not out.parent.is_dir():
        raise InputError(f"{option} {out}: no such folder {out.parent}")
    if out.is_dir() or not os.access(out.parent, os.W_OK):
        raise InputError(f"{option} {out}: {'is a folder' if out.is_dir() else 'the folder cannot be written to'}")


def check_table(out: Path | None) -> None:
    """Raise InputError unless `write_table` can write to `out`; None: it writes nothing."""
    if out is None:
        return
    check_writable(out)
    if out.suffix not in _TABLES:
        raise InputError(f"--out {out}: expected a name that ends in .csv or .parquet")


def refuse_to_overwrite(out: Path | None, config: Config, *inputs: Any) -> None:
    """Raise InputError when `out` is one of the files among `inputs`, or a file that `config.data` names."""
    if out is None:
        return
    read = [each for each in inputs if isinstance(each, str | Path)]
    for value in vars(config.data).values():  # one file, a list of them, or one for each class
        several = value.values() if isinstance(value, dict) else value if isinstance(value, list) else [value]
        read += [each for each in several if isinstance(each, str)]
    if out.resolve() in {Path(path).expanduser().resolve() for path in read if path}:
        raise InputError(f"--out {out}: is an input of this command; use another file")


def write_table(table: pl.DataFrame, out: Path | None) -> None:
    """Write CSV if the name ends in .csv, else Parquet; atomically, so that no partial file is left. None: nothing."""
    if out is None:
        return
    try:
        with replacing(out) as partial:
            if out.suffix == ".csv":
                zoned = pl.selectors.datetime(time_zone="*").dt.to_string(f"{_TIME_FORMAT}%:z")
                table.with_columns(zoned).write_csv(partial, datetime_format=_TIME_FORMAT)
            else:
                table.write_parquet(partial)
    except OSError as error:
        raise InputError(f"--out {out}: cannot be written: {error.strerror}") from None
