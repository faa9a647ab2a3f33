"""Griffe extension that documents the fields of a class with their end-of-line comments."""

import re
from typing import Any

from griffe import Class, Extension


class FieldComments(Extension):
    """List `weights: list[Tensor]  # W after the last token` among the attributes of its class."""

    def on_class_members(self, *, cls: Class, **_: Any) -> None:
        """Add a section of attributes to the docstring of a class whose fields have comments."""
        if cls.docstring is None or "Attributes:" in cls.docstring.value:
            return
        fields = []
        for name, member in cls.members.items():
            if not member.is_attribute or name.startswith("_") or member.lineno is None:
                continue
            source = cls.lines_collection[cls.filepath]
            if comment := re.search(r"\s# (.+)$", source[member.lineno - 1]):
                fields.append(f"    {name}: {comment[1]}")
        if fields:
            cls.docstring.value += "\n".join(["\n\nAttributes:", *fields])
