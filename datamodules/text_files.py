"""Text that others wrote, whatever their editor: with or without gzip, a byte order mark, any ends of lines."""

import gzip
import zlib
from pathlib import Path

from titans_seq.errors import InputError

_GZIP = b"\x1f\x8b"


def read_text(path: Path, kind: str) -> str:
    """The text of a file, its lines ended by a line feed alone; a byte that is no UTF-8 becomes U+FFFD.

    Raises InputError, naming the `kind` of file, when it cannot be read.
    """
    try:
        content = path.read_bytes()
        if content.startswith(_GZIP):
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: not a readable {kind} file: {error}") from None
    return content.decode("utf-8-sig", "replace").replace("\r\n", "\n").replace("\r", "\n")
