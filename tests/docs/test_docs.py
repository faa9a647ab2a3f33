"""Python examples in the docs run, local links resolve, and generated pages are up to date."""

import re
import runpy
from pathlib import Path

import pytest

from tests.helpers import REPOSITORY

# The README is shown on package indices too, where only absolute links work; these point to files of this repository.
OWN_LINK = re.compile(
    r"https://(?:github\.com/titans-seq/titans_seq/(?:blob|tree)|raw\.githubusercontent\.com/titans-seq/titans_seq)/main/"
)
PAGES = [*sorted((REPOSITORY / "docs").glob("*.md")), *sorted(REPOSITORY.glob("*.md"))]
EXAMPLES = [
    pytest.param(page, code, id=f"{page.stem}-{i}")
    for page in sorted((REPOSITORY / "docs").glob("*.md"))
    for i, code in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL))
]


@pytest.mark.parametrize(("page", "code"), EXAMPLES)
def test_an_example_runs(page: Path, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # examples may write files
    exec(compile(code, str(page), "exec"), {})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_within_the_repository_resolve(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
        if own := OWN_LINK.match(target):
            assert (REPOSITORY / target[own.end() :]).exists(), target
        elif "://" not in target:
            assert (page.parent / target).exists(), target


def test_readme_links_are_absolute() -> None:
    targets = re.findall(r"\]\(([^)\s]+)", (REPOSITORY / "README.md").read_text())
    assert len([target for target in targets if OWN_LINK.match(target)]) > 10
    assert [target for target in targets if "://" not in target and not target.startswith("#")] == []


@pytest.mark.parametrize("name", ["configuration", "api"])
def test_generated_pages_are_up_to_date(name: str) -> None:
    generated = runpy.run_path(str(REPOSITORY / "docs" / f"make_{name}.py"))["page"]()
    assert (REPOSITORY / "docs" / f"{name}.md").read_text() == generated, f"run `python docs/make_{name}.py`"


@pytest.mark.parametrize("name", ["architecture", "method"])
def test_drawings_match_their_script(name: str) -> None:
    generated = runpy.run_path(str(REPOSITORY / "docs" / f"make_{name}.py"))["page"]()
    assert (REPOSITORY / "docs" / f"{name}.svg").read_text() == generated, f"run `python docs/make_{name}.py`"
