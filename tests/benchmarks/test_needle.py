"""Needles in a haystack: what is hidden and asked, training from afar, tests in pieces, and runs that resume."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from matplotlib.figure import Figure

pytestmark = pytest.mark.usefixtures("_scripts_import_each_other")


@pytest.fixture
def _scripts_import_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.helpers import REPOSITORY

    monkeypatch.syspath_prepend(str(REPOSITORY / "benchmarks"))


@pytest.fixture
def _short_sources(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A standard library of thirty files, so that no test reads a thousand."""
    from haystack import hiding

    words = ("apple", "berry", "lemon", "mango", "olive")
    for number in range(30):
        (tmp_path / f"module{number}.py").write_text(f"{number} = {words[number % 5]}\n" * 20)
    monkeypatch.setattr(hiding.sysconfig, "get_path", lambda _name: str(tmp_path))
    hiding._sources.cache_clear()
    yield
    hiding._sources.cache_clear()


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("pairs", [1, 4, 64])
def test_every_asked_pair_is_hidden_once(pairs: int) -> None:
    from haystack.hiding import ASK, MARK, MORE_KEYS, hide_pairs

    tokens, answers, at, asking = hide_pairs(5, 1024, seeded(), pairs, MORE_KEYS)
    assert asking == 3 * pairs
    for row, values in zip(tokens.tolist(), answers[..., 0].tolist(), strict=True):
        hay, questions = row[:-asking], row[-asking:]
        assert questions[::3] == [ASK] * pairs
        hidden = {hay[i + 1]: hay[i + 2] for i, byte in enumerate(hay) if byte == MARK}
        assert len(hidden) == hay.count(MARK) == pairs
        assert values == [hidden[key] for key in questions[1::3]]
        assert values == [row[(i + 1) % len(row)] for i in at[:, 0].tolist()]


@pytest.mark.usefixtures("_short_sources")
@pytest.mark.parametrize("name", ["passkey", "text"])
def test_text_hides_what_it_asks(name: str) -> None:
    from haystack.hiding import HAYSTACKS

    sample = HAYSTACKS[name].sample(6, 256, seeded(), True)
    assert sample.tokens.shape == (6, 256)
    firsts = set()
    for row, answers in zip(sample.tokens.tolist(), sample.answers.tolist(), strict=True):
        hay, questions = bytes(row[: -sample.asking]), bytes(row[-sample.asking :])
        firsts.add(answers[0] < answers[-1])
        for answer, at in zip(answers, sample.at.tolist(), strict=True):
            assert bytes(answer) in hay
            assert bytes(answer) in questions
            assert [row[(i + 1) % 256] for i in at] == answer
    assert len(firsts) == 2 or name == "passkey", "number and word are asked in either order"


@pytest.mark.usefixtures("_short_sources")
def test_test_haystacks_are_from_files_that_training_does_not_see() -> None:
    from haystack.hiding import _sources

    (train, _), (test, words) = _sources(True), _sources(False)
    lines = [set(bytes(text.tolist()).splitlines()) - {b""} for text in (train, test)]
    assert not lines[0] & lines[1]
    assert sum(map(len, lines)) == 30
    assert words


def test_needles_do_not_overlap_and_reach_both_ends() -> None:
    from haystack.hiding import _starts

    sizes = torch.tensor([3, 5, 2])
    starts = _starts(2000, 12, sizes, seeded())
    assert (starts[:, 1:] >= (starts + sizes)[:, :-1]).all()
    assert starts.min() == 0
    assert (starts + sizes).max() == 12


@pytest.mark.parametrize("arm", ["lmm", "mal", "mag", "mac", "deep"])
def test_questions_from_afar_are_those_of_the_long_sequence(arm: str) -> None:
    from haystack.far import ask_from_afar
    from haystack.hiding import HAYSTACKS
    from haystack.models import Model, options_of

    torch.manual_seed(0)
    model = Model(options_of(arm, "closing", "bytes")).double()
    sample = HAYSTACKS["bytes"].sample(2, 64, seeded(), True)
    noise = HAYSTACKS["bytes"].noise(2, 80, seeded(), True)
    logits = ask_from_afar(model, sample, noise)
    hay, questions = sample.tokens.split([64 - sample.asking, sample.asking], dim=1)
    expected, _ = model(torch.cat([hay, noise, questions], 1), sample.at)
    torch.testing.assert_close(logits, expected)
    assert not torch.equal(logits, model(sample.tokens, sample.at)[0]), "the noise changes what is remembered"
    logits.square().sum().backward()
    needles = sample.tokens[:, :52].unique()
    only_in_noise = torch.tensor(sorted(set(noise.flatten().tolist()) - set(sample.tokens.flatten().tolist())))
    gradient = model.embedding.weight.grad
    assert gradient is not None
    assert gradient[needles].abs().sum(1).min() > 0
    assert not gradient[only_in_noise].any()


def test_pieces_answer_as_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    from haystack import testing
    from haystack.hiding import HAYSTACKS
    from haystack.models import Model, options_of

    torch.manual_seed(0)
    model = Model(options_of("mal", "closing", "bytes"))
    sample = HAYSTACKS["bytes"].sample(64, 160, seeded(), False)
    whole, _ = testing.answers_right(model, sample)
    monkeypatch.setattr(testing, "PIECE", 40)
    assert torch.equal(testing.answers_right(model, sample)[0], whole)
    monkeypatch.setattr(testing, "PIECE", 150)
    with pytest.raises(ValueError, match="must hold all questions"):
        testing.answers_right(model, sample)


def test_a_cell_is_trained_once_and_tested(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from haystack import cells, training

    monkeypatch.setitem(training.BUDGETS, "penalty", training.Budget(steps=4, tokens=64, fewest=2, penalty=0.1))
    monkeypatch.setattr(cells, "LENGTHS", (64, 128))
    cell = cells.Cell("lmm_online", "closing", "bytes", "penalty", 0)
    figures: dict[str, Any] = cells.run(cell, tmp_path / "results", tmp_path / "weights")
    assert set(figures["answer"]) == {64, 128}
    assert figures["questions"][64] == 256
    assert figures["state_bytes"][64] == figures["state_bytes"][128], "a state does not grow"
    assert figures["budget"]["penalty"] == 0.1
    (layer,) = figures["gates_on_noise"]
    assert layer["lr_open"] == [1.0, 1.0], "gates are open at first"
    monkeypatch.setattr(cells, "train", None)  # a second run finds the weights
    again = cells.run(cell, tmp_path / "results", tmp_path / "weights")
    assert again["answer"] == figures["answer"]


def test_the_penalty_is_on_the_gates() -> None:
    from haystack.models import Model, options_of
    from haystack.training import OpenGates

    model = Model(options_of("lmm", "closing", "text"))
    gates = OpenGates(model)
    model.read(torch.randint(256, (2, 32), generator=seeded()))
    mean = gates.mean()
    lr, forget = 0.25 / 16, 0.002
    assert mean.item() == pytest.approx(2 * (lr + forget), rel=0.2)
    model.read(torch.randint(256, (2, 32), generator=seeded()))
    assert len(gates.values) == 4, "watching has stopped"
    mean.backward()
    memory = model.backbone.blocks[1].memory
    assert memory.gates.weight.grad.abs().sum() > 0


def test_the_grid_has_every_cell_once_and_both_gates() -> None:
    from haystack.cells import grid

    cells = list(grid())
    assert len({cell.path() for cell in cells}) == len(cells)
    for arm in ("lmm_online", "mal", "lmm", "mag", "mac"):
        assert {cell.gates for cell in cells if cell.arm == arm and cell.hay == "bytes"} == {"closing", "sigmoid"}


def made_up(cell: Any) -> dict[str, Any]:
    """Results of a cell that was never run: closing gates answer, sigmoids fail from 64K on."""
    from haystack.testing import CAPACITIES, CAPACITY_LENGTHS, LENGTHS

    figures = {**cell._asdict(), "parameters": 31446, "seconds_training": 1.0}
    if cell.hay == "pairs":
        by_pairs = {str(n): {str(length): 1.0 - n / 100 for length in CAPACITY_LENGTHS} for n in CAPACITIES}
        return figures | {"answer_by_pairs": by_pairs}
    gates = [{"lr_open": [0.0, 0.25], "forget_open": [0.0, 0.5], "left": [1.0, 0.9]}]
    answer = {str(n): 1.0 - cell.seed / 50 if cell.gates == "closing" or n < 65536 else 0.04 for n in LENGTHS}
    others = {name: {str(n): 5.0 for n in LENGTHS} for name in ("haystack", "microseconds_per_byte", "state_bytes")}
    return figures | {"answer": answer, "gates_on_noise": gates, **others}


def test_page_and_figure_show_every_condition(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, figures: list[Figure]
) -> None:
    from haystack import cells, pictures, report

    wanted = [cells.Cell("mal", gates, "bytes", "plain", seed) for gates in ("closing", "sigmoid") for seed in (0, 1)]
    wanted += [
        cells.Cell("mal", "closing", "bytes", "far", 0),
        cells.Cell("transformer", "sigmoid", "text", "plain", 0),
    ]
    wanted += [cells.Cell("deep", "closing", "pairs", "plain", 0)]
    for ablation in cells.ablations():
        (tmp_path / ablation.path().name).write_text(ablation.path().read_text())
    monkeypatch.setattr(cells, "FOLDER", tmp_path)
    (tmp_path / "long").mkdir()
    for cell in wanted:
        cell.path().write_text(json.dumps({"figures": made_up(cell)}))
    rows = report.summary()
    page = tmp_path / "needle.md"
    report.write_page(rows, page)
    text = page.read_text()
    for condition in ("MAL, closing gates |", "MAL, sigmoid gates |", "MAL, closing gates, questions from afar |"):
        assert f"| {condition}" in text
    assert "| MAL, closing gates | 2 | 31,446 | 0.99 ± 0.01 |" in text
    assert (
        "| 0.04 ± 0.00 | 0.04 ± 0.00 | 0.04 ± 0.00 |\n| MAL, closing gates, questions from afar | 1 | 31,446 | **1.00**"
        in text
    )
    assert "| window attention alone | 1 | 31,446 |" in text
    assert "64 pairs |" in text
    assert "0.000, 0.250; 0.000, 0.250" in text, "gates by head and seed"
    pictures.picture(rows, tmp_path / "needle.png")
    labels = {str(line.get_label()) for line in figures[0].axes[0].get_lines()}
    assert labels == {"MAL, closing gates", "MAL, sigmoid gates", "chance"}
