"""Include the configuration and example files in the wheel; all else is in pyproject.toml.

A clone and an editable install read `configs/` itself (titans_seq/shipped.py), so that there is one copy to edit.
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

# Folders of the repository to folders of the wheel. As package data, folders without __init__.py cause warnings.
FILES = {"configs": "titans_seq/_configs", "titans_seq/examples": "titans_seq/examples"}


class BuildWithFiles(build_py):
    """`build_py` that also copies the configuration and example files."""

    def run(self) -> None:
        """Build the packages, then copy the files into them."""
        super().run()
        if not self.editable_mode:
            for source, target in FILES.items():
                folder = Path(self.build_lib) / target
                shutil.rmtree(folder, ignore_errors=True)  # an earlier build may contain files that were removed since
                shutil.copytree(Path(__file__).parent / source, folder)


setup(cmdclass={"build_py": BuildWithFiles})
