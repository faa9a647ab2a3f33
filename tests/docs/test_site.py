"""The documentation site contains every page of the repository, has no broken links and loads nothing external."""

import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import yaml

from tests.helpers import REPOSITORY

CONFIG: dict[str, Any] = yaml.safe_load((REPOSITORY / "mkdocs.yml").read_text())
DOCS = REPOSITORY / "docs"


def navigation_files(entries: Any) -> Iterator[str]:
    """Yield the files of a navigation."""
    for entry in entries if isinstance(entries, list) else entries.values():
        if isinstance(entry, str):
            yield entry
        else:
            yield from navigation_files(entry)


NAV = list(navigation_files(CONFIG["nav"]))


class Tags(HTMLParser):
    """Links, anchors, and the files that a browser loads, of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.fetched: list[str] = []
        self.anchors: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.anchors.add(values.get("id", ""))
        if tag == "a":
            self.links.append(values.get("href", ""))
        elif tag in {"script", "img", "iframe", "source"}:
            self.fetched.append(values.get("src", ""))
        elif tag == "link" and values.get("rel") not in {"canonical", "prev", "next"}:
            self.fetched.append(values.get("href", ""))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Tags]:
    found = {}
    for path in site.rglob("*.html"):
        found[path] = Tags()
        found[path].feed(path.read_text())
    return found


def test_navigation_files_exist() -> None:
    places = [DOCS / name if (DOCS / name).exists() else REPOSITORY / name for name in NAV if name != "index.md"]
    assert [place for place in places if not place.is_file()] == []
    assert len(set(NAV)) == len(NAV)


def test_every_page_of_docs_is_in_the_navigation() -> None:
    assert {path.name for path in DOCS.glob("*.md")} <= set(NAV)


def test_sections_of_the_navigation() -> None:
    sections = [next(iter(entry)) for entry in CONFIG["nav"]]
    assert sections == ["Start", "Learn", "How-to", "Reference", "Understand", "Project"]


def test_readme_is_the_front_page_and_other_pages_are_included(site: Path) -> None:
    sentence = re.findall(r"^[A-Z][^\n*`\[]{30,}", (REPOSITORY / "README.md").read_text(), flags=re.MULTILINE)[0]
    assert sentence.split(" (")[0] in (site / "index.html").read_text()
    for path in [*REPOSITORY.glob("*.md"), REPOSITORY / "benchmarks/LOG.md", *REPOSITORY.glob("notebooks/*.ipynb")]:
        name = path.relative_to(REPOSITORY)
        if name.name != "README.md":
            assert (site / (name.with_suffix(".html") if name.suffix == ".md" else f"{name}.html")).is_file(), name


def test_pages_load_nothing_external(site: Path, pages: dict[Path, Tags]) -> None:
    fetched = {url for tags in pages.values() for url in tags.fetched if url}
    assert [url for url in fetched if urlsplit(url).netloc] == []
    styles = "".join(path.read_text() for path in site.rglob("*.css"))
    assert re.findall(r"(?:url\(|@import\s+)[\"']?https?:[^)]*", styles) == []


def test_links_and_anchors_resolve(site: Path, pages: dict[Path, Tags]) -> None:
    for page, tags in pages.items():
        if page.name == "404.html":  # its links are absolute, because it is served for any address
            continue
        for link in [*tags.links, *tags.fetched]:
            parts = urlsplit(link)
            if parts.scheme or not link:
                continue
            place = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            place = place / "index.html" if place.is_dir() else place
            assert place.is_file(), (page.relative_to(site), link)
            if parts.fragment and place.suffix == ".html":
                assert unquote(parts.fragment) in pages[place].anchors | {"__top"}, (page.relative_to(site), link)


def test_api_pages_have_signatures_and_field_comments(site: Path) -> None:
    text = re.sub(r"<[^>]+>", "", (site / "api/titans_seq.ops.html").read_text())
    assert re.search(r"chunk_size:\s*int\s*=\s*16", text)
    assert "W at the start of the current chunk" in text


def test_links_to_the_repository_are_distinguished_from_external_links(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(DOCS))
    import site_hook

    monkeypatch.setattr(site_hook, "_our_urls", lambda: re.compile(r"https://\w+\.com/us/it/(?:(?:blob|raw)/)?\w+/"))
    inside = {
        "docs/gue.md": "docs/gue.md",
        "https://github.com/us/it/blob/main/docs/gue.md": "docs/gue.md",
        "https://raw.com/us/it/main/docs/concepts.png": "docs/concepts.png",
        "configs/": "configs",
    }
    for link, path in inside.items():
        assert site_hook._in_repository(link, "README.md") == path
    assert site_hook._in_repository("../README.md", "docs/gue.md") == "README.md"
    elsewhere = ["https://github.com/them/it/blob/main/docs/gue.md", "mailto:us", "", "gone.md", "../../up.md", "/docs"]
    assert [site_hook._in_repository(link, "README.md") for link in elsewhere] == [None] * len(elsewhere)


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("README.md", "index.md"),
        ("docs/gue.md", "gue.md"),
        ("docs/api.md", "api/index.md"),
        ("CHANGELOG.md", "CHANGELOG.md"),
        ("benchmarks/LOG.md", "benchmarks/LOG.md"),
        ("configs/forecasting/etth1.yaml", "configs/forecasting/etth1.yaml.md"),
        ("notebooks/01_quickstart.ipynb", "notebooks/01_quickstart.ipynb.md"),
    ],
)
def test_path_of_a_page(path: str, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(DOCS))
    import site_hook

    assert site_hook.site_path(path) == place
    assert site_hook.repository_path(place) == path
