"""Lookup and download of published files: a file is stored complete and verified, or not at all."""

import hashlib
import http.server
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from datamodules.common.download import DATA_VARIABLE, PublishedFile, cache_folder, locate, verify
from datamodules.time_series.datasets.ett import ETT
from tests.helpers import ett_rows, refusal, run_cli, write_ett
from titans_seq.errors import InputError

CONTENT = b"date,OT\n2020-01-01 00:00:00,1.5\n" * 20_000  # longer than one block of the download


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves CONTENT whole, cut short, or not at all, and counts the requests."""

    requests = 0

    def do_GET(self) -> None:
        type(self).requests += 1
        if self.path == "/garbage.csv":
            self.wfile.write(b"this is not HTTP\r\n\r\n")
            return
        found = self.path in ("/whole.csv", "/short.csv")
        self.send_response(200 if found else 404)
        self.send_header("Content-Length", str(len(CONTENT) if found else 0))
        self.end_headers()
        if found:
            self.wfile.write(CONTENT if self.path == "/whole.csv" else CONTENT[:1000])

    def log_message(self, format: str, *args: object) -> None:
        """Keep the tests' output clean."""


@pytest.fixture
def server() -> Iterator[str]:
    """The URL of a server on this machine."""
    Handler.requests = 0
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{listening.server_port}"
        listening.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Use an empty cache, no data folder, and no proxy between the tests and their server."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv(DATA_VARIABLE, raising=False)
    return tmp_path / "cache" / "titans_seq"


def published(url: str, content: bytes = CONTENT) -> PublishedFile:
    return PublishedFile("set/whole.csv", url, hashlib.sha256(content).hexdigest())


def files_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_file_is_downloaded_to_the_cache_once(server: str, cache: Path) -> None:
    file = published(f"{server}/whole.csv")
    path = locate(file, None)
    assert path == cache / "set" / "whole.csv"
    assert path.read_bytes() == CONTENT
    verify(path, file)
    assert locate(file, None) == path
    assert Handler.requests == 1
    assert files_below(cache) == [path], "a partial file was left"


def test_file_is_renamed_only_when_complete(server: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    renamed = []
    replace = Path.replace

    def watch(self: Path, target: Path) -> Path:
        assert self.read_bytes() == CONTENT
        assert self.name.endswith(".part")
        assert self.parent == target.parent, "a rename between folders may not be atomic"
        assert not target.exists()
        renamed.append(target)
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", watch)
    assert renamed == [] != [locate(published(f"{server}/whole.csv"), None)] == renamed


@pytest.mark.parametrize(
    ("name", "content", "part"),
    [
        ("whole.csv", b"other bytes", "the download was discarded"),
        ("short.csv", CONTENT, "the download was discarded"),
        ("absent.csv", CONTENT, "Not Found"),
        ("garbage.csv", CONTENT, "could not be downloaded"),
    ],
)
def test_failed_or_wrong_download_is_an_error_and_leaves_no_file(
    server: str, cache: Path, name: str, content: bytes, part: str
) -> None:
    file = published(f"{server}/{name}", content)
    with pytest.raises(InputError, match=part) as caught:
        locate(file, None)
    assert "\n" not in str(caught.value)
    assert file.url in str(caught.value)
    assert files_below(cache) == []


@pytest.fixture
def closed_url() -> str:
    """A URL with no server behind it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return f"http://127.0.0.1:{port}/whole.csv"


def test_error_without_network_names_path_url_and_keys(closed_url: str, cache: Path) -> None:
    with pytest.raises(InputError) as caught:
        locate(published(closed_url), None)
    message = str(caught.value)
    assert "\n" not in message
    for part in ("whole.csv is not at", str(cache / "set" / "whole.csv"), closed_url, "data.root", DATA_VARIABLE):
        assert part in message
    assert files_below(cache) == []


def test_unwritable_cache_is_an_error(server: str, cache: Path) -> None:
    cache.parent.mkdir()
    cache.write_text("a file where the folder should be")
    with pytest.raises(InputError, match=r"could not be downloaded.*Not a directory"):
        locate(published(f"{server}/whole.csv"), None)


def test_fit_without_network_is_an_error_and_creates_no_run(
    closed_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("datamodules.time_series.datasets.ett._URL", closed_url.rpartition("/")[0])
    answer = run_cli("fit", "data.name=ETTh1", "logging.wandb=off", f"run.dir={tmp_path / 'run'}", cwd=tmp_path)
    assert "ETTh1.csv is not at" in refusal(answer)
    assert files_below(tmp_path) == []


def write_file(root: Path, content: bytes = CONTENT) -> Path:
    path = root / "set" / "whole.csv"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    return path


def test_lookup_order_is_data_root_variable_cache(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, closed_url: str
) -> None:
    file = published(closed_url)
    in_cache, in_variable, in_root = write_file(cache), write_file(tmp_path / "variable"), write_file(tmp_path / "root")
    assert locate(file, None) == in_cache
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path / "variable"))
    assert locate(file, None) == in_variable
    assert locate(file, str(tmp_path / "root")) == in_root


@pytest.mark.parametrize("by", ["data.root", DATA_VARIABLE])
def test_configured_folder_without_the_file_is_an_error_not_a_download(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, server: str, by: str
) -> None:
    write_file(cache)
    empty = tmp_path / "empty"
    empty.mkdir()
    if by == DATA_VARIABLE:
        monkeypatch.setenv(DATA_VARIABLE, str(empty))
    with pytest.raises(InputError, match=r"whole\.csv not found") as caught:
        locate(published(f"{server}/whole.csv"), str(empty) if by == "data.root" else None)
    assert str(empty / "set" / "whole.csv") in str(caught.value)
    assert by in str(caught.value)
    assert Handler.requests == 0
    assert files_below(empty) == []


def test_error_of_a_file_without_download_names_its_source(tmp_path: Path, cache: Path) -> None:
    file = PublishedFile("set/whole.csv", "", "0" * 64, source="https://example.org/sets")
    for root in (str(tmp_path), None):
        with pytest.raises(InputError, match=r"et it from https://example\.org/sets") as caught:
            locate(file, root)
        assert "to download it" not in str(caught.value)
    with pytest.raises(InputError, match=r"unset data\.root to download it"):
        locate(file._replace(url="https://example.org/whole.csv"), str(tmp_path))


def test_cache_is_in_the_home_folder_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "titans_seq"


def test_modified_file_of_the_user_is_an_error_and_left_unchanged(tmp_path: Path, server: str) -> None:
    path = write_ett(tmp_path, ett_rows(17_420))  # ETTh1's size and columns, other numbers
    before, stamp = path.read_bytes(), path.stat().st_mtime_ns
    with pytest.raises(InputError, match=r"sha256 is .* the published file has f18de3ad269c\.\.\..*Left unchanged"):
        ETT("ETTh1", str(tmp_path)).load()
    assert (path.read_bytes(), path.stat().st_mtime_ns) == (before, stamp)
    assert files_below(tmp_path) == [path]
