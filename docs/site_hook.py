"""MkDocs hook that builds the site from the Markdown files of the repository.

A page keeps its path in the repository, except that docs/ is the root and README.md the front page. Pages outside docs/
are read in place, so that git contains no copy. Links are written for GitHub and rewritten here. Linked files that the
site lacks are added: a notebook as a page with its outputs, another text file as a page with its content.
"""

import ast
import functools
import os
import posixpath
import re
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

from make_api import MODULES
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from site_notebooks import notebook_files

REPOSITORY = Path(__file__).parents[1]
OUTSIDE = (
    "benchmarks/README.md",
    "benchmarks/LOG.md",
    "titans_seq/ops/memory/README.md",
    "titans_seq/weights/universal/README.md",
)  # in addition to those at the top level
MOVED = {"README.md": "index.md", "docs/api.md": "api/index.md"}  # paths in the repository and in the site

_SHOWN = {".md", ".png", ".svg", ".gif", ".jpg"}  # included unchanged; other files are converted to pages
_LANGUAGES = {".py": "python", ".yaml": "yaml", ".yml": "yaml", ".toml": "toml", ".json": "json"}
_LINK = re.compile(r'(?P<text>!?\[[^\[\]]*\])\((?P<target>[^)\s]+)\)|(?P<attribute>\b(?:src|href))="(?P<url>[^"]+)"')
_FENCED = re.compile(r"(^[ \t]*```.*?^[ \t]*```[ \t]*$)", re.DOTALL | re.MULTILINE)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Complete the navigation with notebooks, API modules, and the top-level pages that are missing in it."""
    assert isinstance(config.nav, list)
    sections = {name: entries for entry in config.nav if isinstance(entry, dict) for name, entries in entry.items()}
    sections["Learn"] += [site_path(path) for path in _notebooks()]
    reference = sections["Reference"]
    reference[reference.index("api.md")] = {
        "API": [{"Overview": MOVED["docs/api.md"]}, *({m: _api_path(m)} for m in MODULES)]
    }
    named = str(config.nav)
    sections["Project"] += [path for path in _top_level() if site_path(path) not in named]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages outside docs/, the notebooks, the API pages, and the files that pages link to."""
    if moved := files.get_file_from_path("api.md"):
        files.remove(moved)
    for path in (*_top_level(), *OUTSIDE, "docs/api.md", *_notebooks()):
        _add(files, config, path)
    for module in MODULES:
        files.append(File.generated(config, _api_path(module), content=_api_page(module)))
    for page in files.documentation_pages():
        for path in _linked(page.content_string, repository_path(page.src_uri)):
            if not files.get_file_from_path(site_path(path)) and (REPOSITORY / path).is_file():
                _add(files, config, path)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Rewrite links for the site, and keep a number and its standard deviation on one line."""
    if page.file.src_uri == MOVED["docs/api.md"]:
        markdown = _api_index(markdown)
    if page.file.src_uri == MOVED["README.md"]:
        page.meta["hide"] = ["navigation"]  # a menu of one entry

    def change(text: str) -> str:
        text = _LINK.sub(functools.partial(_rewrite, page.file, files), text)
        text = re.sub(r"(?<=\d) ± (?=[\d.])", "\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}", text)
        return re.sub(r"(\d\*{0,2}) / (?=\*{0,2}[\d-])", "\\1\N{NO-BREAK SPACE}/ ", text)

    return _outside_code(markdown, change)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> None:
    """Raise PluginError if the API page of a module lacks one of its public names."""
    for module in MODULES:
        if page.file.src_uri == _api_path(module):
            missing = [name for name in _api_names(module) if not re.search(rf'<h2 id="[\w.]+\.{name}"', html)]
            if missing:
                raise PluginError(f"{page.file.src_uri}: no entry for {', '.join(missing)}")


def site_path(path: str) -> str:
    """Return the path in the site of a path in the repository."""
    moved = MOVED.get(path, path.removeprefix("docs/"))
    return moved if Path(path).suffix in _SHOWN else f"{moved}.md"


def repository_path(path: str) -> str:
    """Return the path in the repository of a page of the site."""
    moved = {site: ours for ours, site in MOVED.items()}.get(path, path)
    places = (moved, moved.removesuffix(".md"), f"docs/{moved}")
    return next(place for place in places if (REPOSITORY / place).is_file() or place == places[-1])


def _rewrite(source: File, files: Files, link: re.Match[str]) -> str:
    """Return a link for the site; one to a folder leads to its first page, or becomes its text if there is none."""
    target, hash_sign, anchor = (link["target"] or link["url"]).partition("#")
    path = _in_repository(target, repository_path(source.src_uri))
    if path is None:
        return link[0]
    file = files.get_file_from_path(site_path(path)) or _first_page(files, path)
    if file is None:
        return link["text"][1:-1] if link["text"] else link[0]
    inside_html = bool(link["attribute"])  # MkDocs leaves these links as they are
    there = file.dest_uri if inside_html else file.src_uri
    there = posixpath.relpath(there, posixpath.dirname(source.src_uri) or ".") + hash_sign + anchor
    if inside_html:
        return f'{link["attribute"]}="{there}"'
    title = file.page.title if file.page and link["text"][1:-1] in (path, target) else None
    return f"[{title}]({there})" if title else f"{link['text']}({there})"


def _first_page(files: Files, folder: str) -> File | None:
    inside = (path for path in (f"{folder}/README.md", *_notebooks()) if path.startswith(f"{folder}/"))
    return next((file for path in inside if (file := files.get_file_from_path(site_path(path)))), None)


def _in_repository(target: str, source: str) -> str | None:
    """Return the file or folder of the repository that a link points to, None for external links."""
    if ours := _our_urls().match(target):
        target, source = target[ours.end() :], ""
    if not target or ":" in target or target.startswith("/"):
        return None
    path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
    return path if not path.startswith("..") and (REPOSITORY / path).exists() else None


@functools.cache
def _our_urls() -> re.Pattern[str]:
    """Return the pattern of absolute links to files of this repository, from the URLs in pyproject.toml."""
    urls = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"].get("urls", {})
    names = {"/".join(url.split("/")[3:5]).removesuffix(".git") for url in urls.values()}
    ours = "|".join(re.escape(name) for name in sorted(names) if name.count("/") == 1)
    return re.compile(rf"https://[\w.]+/(?:{ours})/(?:(?:blob|raw|tree)/)?[\w.-]+/" if ours else r"(?!)")


def _linked(text: str, source: str) -> Iterator[str]:
    for part in _FENCED.split(text)[::2]:
        for link in _LINK.finditer(part):
            if path := _in_repository((link["target"] or link["url"]).partition("#")[0], source):
                yield path


def _outside_code(text: str, change: Callable[[str], str]) -> str:
    return "".join(part if index % 2 else change(part) for index, part in enumerate(_FENCED.split(text)))


def _top_level() -> list[str]:
    return sorted(path.name for path in REPOSITORY.glob("*.md"))


def _notebooks() -> list[str]:
    return sorted(f"notebooks/{path.name}" for path in (REPOSITORY / "notebooks").glob("*.ipynb"))


def _add(files: Files, config: MkDocsConfig, path: str) -> None:
    """Add a file of the repository, or the page that shows it."""
    suffix, place, file = Path(path).suffix, site_path(path), REPOSITORY / path
    if suffix in _SHOWN:
        files.append(File.generated(config, place, abs_src_path=os.fspath(file)))
    elif suffix == ".ipynb":
        for name, content in notebook_files(file, place).items():
            files.append(File.generated(config, name, content=content))
    else:
        page = f"# {path}\n\n````{_LANGUAGES.get(suffix, 'text')}\n{file.read_text()}\n````\n"
        files.append(File.generated(config, place, content=page))


def _api_path(module: str) -> str:
    return f"api/{module}.md"


def _api_names(module: str) -> tuple[str, ...]:
    """Return the public names of a module."""
    chosen = MODULES[module]
    if chosen is not None:
        return chosen
    exported = (
        node.value
        for node in ast.parse((_folder(module) / "__init__.py").read_text()).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    )
    return tuple(ast.literal_eval(next(exported)))


def _api_page(module: str) -> str:
    """Return a page that mkdocstrings fills from the source, which it parses without importing it."""
    names = _api_names(module)
    hidden = [name for name in names if (_folder(module) / f"{name}.py").exists()]  # behind a module of the same name
    shown = ", ".join(name for name in names if name not in hidden)
    options = ("show_root_heading: false", "show_root_toc_entry: false", f"members: [{shown}]")
    lines = [f"# {module}", "", f"::: {module}", "    options:", *(f"      {each}" for each in options)]
    lines += [line for name in hidden for line in ("", f"::: {module}.{name}.{name}")]
    return "\n".join([*lines, ""])


def _folder(module: str) -> Path:
    return REPOSITORY / module.replace(".", "/")


def _api_index(markdown: str) -> str:
    """Return the introduction of docs/api.md with a list of the modules instead of the signatures."""
    introduction, *sections = markdown.split("\n## ")
    rows = []
    for section in sections:
        module, _, text = section.partition("\n\n")
        names = ", ".join(f"`{name}`" for name in re.findall(r"^### (\w+)$", section, flags=re.MULTILINE))
        rows.append(f"| [{module}]({module}.md) | {text.partition(chr(10))[0]} | {names} |")
    heads = ["| module | contents | public names |", "|---|---|---|"]
    return "\n".join([introduction.rstrip(), "", *heads, *rows, ""])
