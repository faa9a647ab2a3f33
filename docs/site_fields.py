"""Griffe extension: the comment behind a field of a class is the field's documentation."""

import re
from typing import Any

from griffe import Attribute, Docstring, Extension


class FieldComments(Extension):
    """Take `weights: list[Tensor]  # W after the last token` as a field with that text."""

    def on_attribute_instance(self, *, attr: Attribute, **_: Any) -> None:
        """Add the comment of a field that has no docstring."""
        in_class = attr.parent is not None and attr.parent.is_class
        if not in_class or attr.docstring or attr.lineno is None:
            return
        line = attr.lines_collection[attr.filepath][attr.lineno - 1]
        if comment := re.search(r"\s# (.+)$", line):
            attr.docstring = Docstring(comment[1], parent=attr)
