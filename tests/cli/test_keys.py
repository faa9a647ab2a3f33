"""`titans-seq keys`: default, accepted values and meaning of every key of every task."""

import re

import pytest

from tests.helpers import Refuse, run_cli
from titans_seq.config import flatten
from titans_seq.schema import SCHEMAS
from titans_seq.schema.describe import describe_keys


def keys(*arguments: str) -> str:
    answer = run_cli("keys", *arguments)
    assert answer.status == 0, answer.err
    return answer.out


def names(text: str) -> list[str]:
    return re.findall(r"^([\w.]+)=", text, flags=re.MULTILINE)


def test_all_keys_of_all_tasks_are_listed() -> None:
    assert set(names(keys())) == {key for schema in SCHEMAS.values() for key in flatten(schema())}


@pytest.mark.parametrize("task", list(SCHEMAS))
def test_every_key_has_a_meaning(task: str) -> None:
    assert [key.name for key in describe_keys(SCHEMAS[task]) if key.meaning == ""] == []


@pytest.mark.parametrize("task", list(SCHEMAS))
def test_keys_of_a_task(task: str) -> None:
    text = keys("--task", task)
    assert sorted(names(text)) == sorted(flatten(SCHEMAS[task]()))
    assert "[task.name=" not in text


def test_a_section_and_a_key() -> None:
    section = names(keys("model.memory"))
    assert len(section) > 5
    assert all(name.startswith("model.memory.") for name in section)
    assert names(keys("learning_rate")) == ["task.learning_rate"]
    assert names(keys("data.root", "experiment", "--task", "forecasting")) == ["data.root", "experiment"]


def test_entry_contains_default_values_and_meaning() -> None:
    first, second = keys("trainer.patience").splitlines()
    assert first == "trainer.patience=3  (integer, at least 1)"
    assert second == "    epochs without a better validation score before training stops"
    text = keys("data.horizon")
    assert text.startswith("data.horizon=96  (integer, at least 1)  [task.name=forecasting]\n")
    assert "accelerator=auto  (text)" in keys("trainer")
    assert "(lmm, " in keys("model.variant")


@pytest.mark.parametrize(
    ("prefix", "suggestion"),
    [
        ("model.memry", "model.memory"),
        ("learning_rat", "task.learning_rate"),
        ("data.horizn", "data.horizon"),
        ("lr", "task.learning_rate"),
    ],
)
def test_suggestion_for_a_misspelt_key(refuse: Refuse, prefix: str, suggestion: str) -> None:
    assert f"keys {prefix}: no such key or section; did you mean {suggestion}?" in refuse("keys", prefix)


def test_help_of_fit_refers_to_the_command_keys() -> None:
    text = run_cli("fit", "--help").out
    assert "`titans-seq keys` explains each" in text
    assert "titans-seq fit forecasting/etth1 'seeds=[0,1,2]'" in text
