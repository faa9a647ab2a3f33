"""Python examples in the docs run, local links resolve, and generated pages are up to date."""

import re
import runpy
from pathlib import Path

import pytest

from tests.helpers import REPOSITORY

PAGES = [*sorted((REPOSITORY / "docs").glob("*.md")), *sorted(REPOSITORY.glob("*.md"))]
EXAMPLES = [
    pytest.param(page, code, id=f"{page.stem}-{i}")
    for page in sorted((REPOSITORY / "docs").glob("*.md"))
    for i, code in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL))
]


@pytest.mark.parametrize(("page", "code"), EXAMPLES)
def test_an_example_runs(page: Path, code: str) -> None:
    exec(compile(code, str(page), "exec"), {})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_local_links_resolve(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("name", ["configuration", "api"])
def test_generated_pages_are_up_to_date(name: str) -> None:
    generated = runpy.run_path(str(REPOSITORY / "docs" / f"make_{name}.py"))["page"]()
    assert (REPOSITORY / "docs" / f"{name}.md").read_text() == generated, f"run `python docs/make_{name}.py`"
