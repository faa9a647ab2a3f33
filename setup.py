"""Include the folder `configs/` in the wheel as `titans_seq/_configs/`; all else is in pyproject.toml.

A clone and an editable install read `configs/` itself (titans_seq/shipped.py), so that there is one copy to edit.
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithConfigs(build_py):
    """`build_py` that also copies the configuration files."""

    def run(self) -> None:
        """Build the packages, then copy the configuration files into them."""
        super().run()
        if not self.editable_mode:
            target = Path(self.build_lib) / "titans_seq" / "_configs"
            shutil.rmtree(target, ignore_errors=True)  # an earlier build may contain files that were removed since
            shutil.copytree(Path(__file__).parent / "configs", target)


setup(cmdclass={"build_py": BuildWithConfigs})
