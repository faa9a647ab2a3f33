"""Project files are consistent with the code: versions, Python versions, commands of workflows and images."""

import json
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

import titans_seq
from tests.helpers import REPOSITORY

CHANGELOG = (REPOSITORY / "CHANGELOG.md").read_text()
WORKFLOWS = sorted((REPOSITORY / ".github" / "workflows").glob("*.yml"))
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
KINDS = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_versions_agree() -> None:
    newest = re.findall(r"^## (\S+) - ", CHANGELOG, flags=re.MULTILINE)[0]
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())
    assert newest == citation["version"] == titans_seq.__version__
    assert "version" in PROJECT["dynamic"]


def test_changelog_format() -> None:
    versions = re.split(r"^## ", CHANGELOG, flags=re.MULTILINE)[1:]
    assert len(versions) >= 2
    for version in versions:
        assert re.match(r"\d+\.\d+\.\d+ - (unreleased|\d{4}-\d{2}-\d{2})\n", version)
        kinds = re.findall(r"^### (.*)$", version, flags=re.MULTILINE)
        assert kinds
        assert set(kinds) <= KINDS
        assert len(set(kinds)) == len(kinds)
        entries = re.split(r"^- ", version, flags=re.MULTILINE)[1:]
        assert max(entry.partition("\n#")[0].count("\n") for entry in entries) <= 4, (
            "entries of the changelog must be short"
        )


def test_continuous_integration_covers_the_python_versions_of_the_metadata() -> None:
    ci = yaml.safe_load((REPOSITORY / ".github/workflows/ci.yml").read_text())
    tested = ci["jobs"]["test"]["strategy"]["matrix"]["python"]
    assert PROJECT["requires-python"] == f">={tested[0]}"
    named = [each.rpartition(" ")[2] for each in PROJECT.get("classifiers", ()) if ":: 3." in each]
    assert named in ([], tested)


@pytest.mark.parametrize("path", [*WORKFLOWS, REPOSITORY / "Dockerfile"], ids=lambda path: path.name)
def test_make_targets_exist(path: Path) -> None:
    targets = set(re.findall(r"\bmake ([a-z-]+)", path.read_text()))
    for target in targets:
        subprocess.run(["make", "--dry-run", target], cwd=REPOSITORY, check=True, capture_output=True)


def test_issue_forms_and_containers_are_valid() -> None:
    for path in (REPOSITORY / ".github").rglob("*.yml"):
        assert isinstance(yaml.safe_load(path.read_text()), dict)
    for form in ("bug", "idea"):
        body = yaml.safe_load((REPOSITORY / f".github/ISSUE_TEMPLATE/{form}.yml").read_text())["body"]
        assert {"type", "id", "attributes"} <= set(body[0])
    assert (
        json.loads((REPOSITORY / ".devcontainer/devcontainer.json").read_text())["postCreateCommand"] == "make install"
    )
    assert len((REPOSITORY / "README.md").read_text().splitlines()) <= 150
