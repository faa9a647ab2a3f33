"""MkDocs hook: the repository's own Markdown as one site.

A page keeps its path in the repository, except that docs/ is the root and README.md the front page. Pages outside docs/
are read in place, so that git holds no copy. Links are those that work on GitHub; they are rewritten here. What a page
links to and the site lacks is added: a notebook as a page with its outputs, another text file as a page that shows it.
"""

import ast
import os
import posixpath
import re
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from make_api import MODULES
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from site_notebooks import notebook_files

REPOSITORY = Path(__file__).parents[1]
FRONT_PAGE = "README.md"
OUTSIDE = ["benchmarks/README.md", "benchmarks/LOG.md", "titans_seq/ops/memory/README.md"]  # beside those at the top
_IMAGES = {".png", ".svg", ".gif", ".jpg"}
_LINK = re.compile(r'(\]\(\s*<?|\b(?:src|href)=")([^)\s>"]+)')
_FENCED = re.compile(r"(^[ \t]*```.*?^[ \t]*```[ \t]*$)", re.DOTALL | re.MULTILINE)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Complete the navigation: the notebooks, a page for each module of the API, top-level pages that it does not name."""
    assert isinstance(config.nav, list)
    sections = {name: entries for entry in config.nav if isinstance(entry, dict) for name, entries in entry.items()}
    reference = sections["Reference"]
    reference[reference.index("api.md")] = {"API": ["api.md", *({m: _api_path(m)} for m in MODULES)]}
    sections["Learn"] += [_site_path(path) for path in _notebooks()]
    named = str(config.nav)
    sections["Project"] += [path for path in _top_level() if path != FRONT_PAGE and path not in named]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages outside docs/, the pages of the API, and what any page links to."""
    for path in [*_top_level(), *OUTSIDE]:
        files.append(_file(config, path))
    for path in _notebooks():
        for file in _added(config, path):
            files.append(file)
    for module in MODULES:
        files.append(File.generated(config, _api_path(module), content=_api_page(module)))
    queue = [(_repository_path(file.src_uri), file.content_string) for file in files.documentation_pages()]
    for source, text in queue:
        for path in _linked(text, source):
            if files.get_file_from_path(_site_path(path)) or not (REPOSITORY / path).is_file():
                continue
            for file in _added(config, path):
                files.append(file)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point links at the site's pages; a link to what the site does not show, such as a folder, becomes plain text."""
    if page.file.src_uri == "api.md":
        markdown = _api_index(markdown)
    source = _repository_path(page.file.src_uri)

    def rewrite(match: re.Match[str]) -> str:
        target, _, anchor = match[2].partition("#")
        path = _in_repository(target, source)
        if path is None:
            return match[0]
        file = files.get_file_from_path(_site_path(path))
        if file is None:
            return f"{match[1]}{_NOWHERE}"
        raw = not match[1].startswith("]")  # MkDocs leaves links in HTML as they are
        link = posixpath.relpath(file.dest_uri if raw else file.src_uri, posixpath.dirname(page.file.src_uri) or ".")
        return f"{match[1]}{link}{'#' if anchor else ''}{anchor}"

    return _outside_code(markdown, lambda text: _unlink(_LINK.sub(rewrite, text)))


_NOWHERE = "nowhere:"


def _unlink(text: str) -> str:
    return re.sub(rf"\[([^\]]*)\]\({_NOWHERE}[^)]*\)", r"\1", text)


def _top_level() -> list[str]:
    return sorted(path.name for path in REPOSITORY.glob("*.md"))


def _notebooks() -> list[str]:
    return sorted(f"notebooks/{path.name}" for path in (REPOSITORY / "notebooks").glob("*.ipynb"))


def _site_path(path: str) -> str:
    """A path in the repository as the site's."""
    moved = "index.md" if path == FRONT_PAGE else path.removeprefix("docs/")
    is_page = Path(path).suffix in {".md", *_IMAGES} or path.startswith("docs/")
    return moved if is_page else f"{moved}.md"


def _repository_path(site_path: str) -> str:
    if site_path == "index.md":
        return FRONT_PAGE
    return site_path if (REPOSITORY / site_path).is_file() and "/" in site_path else _top_or_docs(site_path)


def _top_or_docs(site_path: str) -> str:
    return site_path if site_path in _top_level() else f"docs/{site_path}"


def _in_repository(target: str, source: str) -> str | None:
    """The repository's file or folder that a link means; None for a link elsewhere."""
    if ours := _our_urls().match(target):
        target, source = target[ours.end() :], ""
    if not target or ":" in target or target.startswith(("/", "#")):
        return None
    path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
    return path if not path.startswith("..") and (REPOSITORY / path).exists() else None


def _our_urls() -> re.Pattern[str]:
    """What an absolute link to a file of this repository begins with, by the addresses in pyproject.toml."""
    urls = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"].get("urls", {})
    names = {"/".join(url.split("/")[3:5]).removesuffix(".git") for url in urls.values()}
    ours = "|".join(re.escape(name) for name in names if name.count("/") == 1)
    return re.compile(rf"https://[\w.]+/(?:{ours})/(?:(?:blob|raw|tree)/)?[\w.-]+/" if ours else r"(?!)")


def _linked(text: str, source: str) -> Iterator[str]:
    for part in _FENCED.split(text)[::2]:
        for _, target in _LINK.findall(part):
            if path := _in_repository(target.partition("#")[0], source):
                yield path


def _outside_code(text: str, change: Callable[[str], str]) -> str:
    parts = _FENCED.split(text)
    return "".join(part if index % 2 else change(part) for index, part in enumerate(parts))


def _file(config: MkDocsConfig, path: str) -> File:
    return File.generated(config, _site_path(path), abs_src_path=os.fspath(REPOSITORY / path))


def _added(config: MkDocsConfig, path: str) -> list[File]:
    """The files that show a file of the repository."""
    suffix = Path(path).suffix
    if suffix in {".md", *_IMAGES}:
        return [_file(config, path)]
    if suffix == ".ipynb":
        return [
            File.generated(config, name, content=content)
            for name, content in notebook_files(REPOSITORY / path, _site_path(path)).items()
        ]
    language = {".py": "python", ".yaml": "yaml", ".yml": "yaml", ".toml": "toml", ".json": "json"}.get(suffix, "text")
    text = (REPOSITORY / path).read_text()
    return [File.generated(config, _site_path(path), content=f"# {path}\n\n````{language}\n{text}\n````\n")]


def _api_path(module: str) -> str:
    return f"api/{module}.md"


def _api_page(module: str) -> str:
    """A page that mkdocstrings fills from the source, which it parses and does not import."""
    path = REPOSITORY / module.replace(".", "/")
    source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    names: Any = MODULES[module]
    if names is None:
        exported = (
            node.value
            for node in ast.parse(source.read_text()).body
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
        )
        names = ast.literal_eval(next(exported))
    options = f"    options:\n      show_root_heading: false\n      members: [{', '.join(names)}]\n"
    return f"# {module}\n\n::: {module}\n{options}"


def _api_index(markdown: str) -> str:
    """The introduction of docs/api.md and a list of the modules, in place of the signatures that follow there."""
    introduction = markdown[: markdown.index("\n## ")].rstrip()
    rows = []
    for section in markdown.split("\n## ")[1:]:
        module, _, text = section.partition("\n\n")
        names = ", ".join(f"`{name}`" for name in re.findall(r"^### (\w+)$", section, flags=re.MULTILINE))
        rows.append(f"| [{module}](api/{module}.md) | {text.partition(chr(10))[0]} | {names} |")
    return "\n".join([introduction, "", "| module | what it is | public names |", "|---|---|---|", *rows, ""])
