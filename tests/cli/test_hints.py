"""Error lines for unknown commands, options, keys and values suggest the right ones."""

import re

import pytest

from tests.helpers import Refuse, run_cli
from titans_seq.cli.parser import COMMANDS
from titans_seq.config import flatten
from titans_seq.schema import SCHEMAS
from titans_seq.schema.aliases import ALIASES, KEY_OF_SECTION

CASES = {
    "another tool's command": (["train"], "train: no such command; did you mean titans-seq fit?"),
    "a misspelt command": (["forcast"], "forcast: no such command; did you mean titans-seq forecast?"),
    "an unknown command": (["xyzzy"], "xyzzy: no such command; accepted: fit, validate,"),
    "a key as an option": (
        ["fit", "forecasting/etth1", "--max_epochs", "1"],
        "unrecognized arguments: --max_epochs; keys are set without dashes: trainer.max_epochs=1;",
    ),
    "with dashes and =": (["fit", "forecasting/etth1", "--max-epochs=1"], "without dashes: trainer.max_epochs=1;"),
    "another tool's option": (["fit", "forecasting/etth1", "--lr", "1e-3"], "without dashes: task.learning_rate=1e-3;"),
    "a file as an option": (
        ["fit", "--config", "forecasting/etth1"],
        "--config; give the file as an argument: titans-seq fit forecasting/etth1",
    ),
    "a file as an option, with =": (["fit", "--config=my.yaml"], "as an argument: titans-seq fit my.yaml"),
    "an unknown option": (["fit", "--xyzzy"], "--xyzzy; titans-seq fit --help lists the options"),
    "another tool's key": (["fit", "lr=1e-3"], "lr: no such key; did you mean task.learning_rate?"),
    "a key without its section": (["fit", "variant=LMM"], "variant: no such key; did you mean model.variant=lmm?"),
    "a value in another case": (["fit", "model.variant=LMM"], "model.variant: no such value 'LMM'; did you mean lmm?"),
    "a misspelt value": (["fit", "data.name=wether"], "data.name: no such value 'wether'; did you mean Weather?"),
    "a section's value": (["fit", "model=mac"], "model: is a section; did you mean model.variant=mac?"),
    "a name without its folder": (["fit", "motif"], "motif: no such config file; did you mean genomics/motif?"),
}


@pytest.mark.parametrize(("arguments", "part"), CASES.values(), ids=CASES.keys())
def test_suggestions(refuse: Refuse, arguments: list[str], part: str) -> None:
    assert part in refuse(*arguments)


def test_suggested_keys_exist() -> None:
    known = {key for schema in SCHEMAS.values() for key in flatten(schema())}
    assert {*ALIASES.values(), *KEY_OF_SECTION.values()} <= known
    assert not known & ALIASES.keys()


def test_help_is_shown_without_arguments() -> None:
    answer = run_cli()
    assert (answer.status, answer.out) == (2, "")
    assert all(re.search(rf"^    {name}\s", answer.err, re.MULTILINE) for name in COMMANDS)
