"""DNA classification runs of the shipped configurations: files of the run folder, evaluation and prediction."""

import csv
import json
import math
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from matplotlib.image import imread

from datamodules.dna.datasets.catalogue import open_data
from datamodules.dna.datasets.genomic_benchmarks import BENCHMARKS
from datamodules.dna.datasets.simulated_motif import BEST_ACCURACY, PlantedMotif
from datamodules.dna.datasets.simulated_motif import MOTIF as PLANTED
from tests.datamodules.dna.dna_reference import random_dna, slow_reverse_complement
from tests.experiment.running import Finished, fit
from tests.helpers import CONFIGS, TWO_STEPS, VARIANTS, Refuse, for_variant, run_cli
from titans_seq.config import load_config, to_container
from titans_seq.experiment import measure
from titans_seq.experiment.registry import build_experiment
from titans_seq.tasks import ClassificationTask

EXPERIMENTS = [path for path in sorted((CONFIGS / "genomics").glob("*.yaml")) if "classification" in path.read_text()]
OFFICIAL, WITHIN = (CONFIGS / "genomics" / f"genomic_benchmarks{end}.yaml" for end in ("", "_within"))
MOTIF = CONFIGS / "genomics" / "motif.yaml"
SAME_ROWS = "trainer.limit_batches=2"  # the same limit as the fits here; by default all rows are evaluated
SCORES = ("accuracy", "f1", "mcc", "auroc", "auprc", "loss")
SMALL = ["model.dim=8", "model.num_layers=1", "model.memory.num_heads=2", "data.batch_size=16"]


def write_official(root: Path, name: str, rows: int = 30) -> Path:
    """Write a genomic benchmark in its official layout: text files, `rows` sequences per class and split."""
    rng = np.random.default_rng(4)
    for split in ("train", "test"):
        for label in BENCHMARKS[name].classes:
            folder = root / name / split / label
            folder.mkdir(parents=True)
            for row in range(rows):
                (folder / f"{row}.txt").write_text("".join(rng.choice(list("ACGT"), size=int(rng.integers(20, 60)))))
    return root


@pytest.fixture(scope="module", params=EXPERIMENTS, ids=lambda path: str(path.stem))
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A run of two steps of every shipped experiment."""
    config: Path = request.param
    folder = tmp_path_factory.mktemp(config.stem)
    overrides = ["data.batch_size=8"]
    if config.stem in ("gue", "genomic_benchmarks_within"):
        overrides.append(f"data.root={request.getfixturevalue('data_root')}")
    if config.stem == "genomic_benchmarks":
        overrides.append(f"data.root={write_official(folder / 'data', load_config([config]).data.name)}")
    if config.stem == "sequences":
        table = write_table(folder / "regions.csv", random_dna([40] * 300, seed=7), ["a", "b"] * 150)
        overrides.append(f"data.name={table}")
    return fit(config, folder / "run", *overrides)


def test_run_folder_is_complete(run: Finished) -> None:
    folder, results, *_ = run
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    wanted = {"config.yaml", "metrics.csv", "results.json", "env.json", "plots/classes.png", "plots/training.png"}
    assert files == wanted | {"checkpoints/best.ckpt", "checkpoints/last.ckpt"}
    assert results["test_rows"] == 16
    assert all(-1 <= results[f"test/{name}"] <= 1 for name in SCORES[:-1])
    assert 0.3 < results["test/loss"] < 3
    image = imread(folder / "plots" / "classes.png")
    assert image[..., :3].std() > 0.05, "the figure is blank"
    checkpoint = torch.load(run.checkpoint, weights_only=True)
    assert checkpoint["hyper_parameters"]["config"] == to_container(load_config([folder / "config.yaml"]))
    assert checkpoint["hyper_parameters"]["classes"] == results["classes"]
    assert results["parameters"] == sum(p.numel() for p in run.task(ClassificationTask).parameters())


def test_metrics_csv_equals_results(run: Finished) -> None:
    with (run.folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    for name in SCORES:
        assert [float(row[f"test/{name}"]) for row in rows if row[f"test/{name}"]] == [run.results[f"test/{name}"]]
    selected = f"val/{load_config([run.folder / 'config.yaml']).task.monitor}"
    assert [float(row[selected]) for row in rows if row[selected]] == [run.results[f"best_{selected}"]]


def test_test_and_validate_reproduce_the_scores_of_fit(run: Finished) -> None:
    found = measure(run.checkpoint, "test", [SAME_ROWS])
    assert found == {f"test/{name}": run.results[f"test/{name}"] for name in SCORES}
    answer = run_cli("test", run.checkpoint, SAME_ROWS)
    assert answer.status == 0, answer.err
    assert "note: the test split of " in answer.err
    assert f"{run.results['rows']['test']:,} test sequences" in answer.err
    assert answer.out.split() == [part for name, value in found.items() for part in (name, f"{value:.4f}")]
    validated = run_cli("validate", run.checkpoint, SAME_ROWS)
    assert "val/mcc" in validated.out, validated.err


def test_predictions_of_the_test_split_equal_the_task(run: Finished, tmp_path: Path) -> None:
    out = tmp_path / "predictions.parquet"
    answer = run_cli("predict", run.checkpoint, "--out", out, SAME_ROWS)
    assert answer.status == 0, answer.err
    assert list(tmp_path.iterdir()) == [out]
    table, classes = pl.read_parquet(out), run.results["classes"]
    assert table.columns == ["row", "label", "predicted", *(f"probability_{name}" for name in classes)]
    assert len(table) == run.results["test_rows"]
    assert (table["label"] == table["predicted"]).mean() == pytest.approx(run.results["test/accuracy"])
    task = run.task(ClassificationTask)
    rows = build_experiment(task.config).data.rows("test")
    for row, label, _, *probabilities in table.iter_rows():
        tokens = torch.from_numpy(rows.sequences[row].astype(np.int64))[None, : task.config.data.max_length]
        with torch.inference_mode():
            expected = task(tokens, torch.ones_like(tokens, dtype=torch.bool)).softmax(dim=1)[0]
        np.testing.assert_allclose(probabilities, expected.numpy(), rtol=0, atol=1e-5)
        assert label == classes[rows.labels[row]]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A run of a small model on the built-in data."""
    return fit(MOTIF, tmp_path_factory.mktemp("small") / "run", *SMALL)


def write_table(path: Path, texts: list[str], labels: list[str] | None = None) -> Path:
    columns = {"id": [f"s{i}" for i in range(len(texts))], "sequence": texts, "label": labels}
    pl.DataFrame({name: values for name, values in columns.items() if values}).write_csv(path)
    return path


def test_predictions_from_fasta_and_table_are_equal(small: Finished, tmp_path: Path) -> None:
    texts = PlantedMotif().load().train.sequences.texts()[:40]
    fasta = tmp_path / "new.fa"
    fasta.write_text("".join(f">s{i} a note\n{text[:30]}\n{text[30:].lower()}\n" for i, text in enumerate(texts)))
    tables = []
    for source, out in ((fasta, "a.parquet"), (write_table(tmp_path / "new.csv", texts), "b.csv")):
        answer = run_cli("predict", small.checkpoint, "--input", source, "--out", tmp_path / out, cwd=tmp_path)
        assert answer.status == 0, answer.err
        assert "40 rows written" in answer.out
        read = pl.read_csv if out.endswith(".csv") else pl.read_parquet
        tables.append(read(tmp_path / out))
    assert tables[0].columns == ["id", "predicted", "probability_background", "probability_motif"]
    assert tables[0]["id"].to_list() == tables[1]["id"].to_list() == [f"s{i}" for i in range(40)]
    both = [table.select(pl.col("^probability.*$")).to_numpy() for table in tables]
    np.testing.assert_allclose(*both, rtol=0, atol=1e-6)
    np.testing.assert_allclose(both[0].sum(axis=1), 1, atol=1e-5)
    names = np.array(["background", "motif"])[both[0].argmax(axis=1)]
    assert names.tolist() == tables[0]["predicted"].to_list()
    # Both strands are averaged, so reverse complements have the same predictions.
    opposite = [text[::-1].translate(str.maketrans("ACGT", "TGCA")) for text in texts]
    source = write_table(tmp_path / "opposite.csv", opposite)
    assert run_cli("predict", small.checkpoint, "--input", source, "--out", tmp_path / "c.csv").status == 0
    third = pl.read_csv(tmp_path / "c.csv").select(pl.col("^probability.*$")).to_numpy()
    np.testing.assert_allclose(third, both[0], rtol=0, atol=1e-6)
    assert run_cli("predict", small.checkpoint, "--input", source, "--out", tmp_path / "c.csv", "model.strand=one")
    one = pl.read_csv(tmp_path / "c.csv")
    assert len(one) == 40


def test_prediction_of_a_file_does_not_need_the_training_data(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    texts = ["".join(rng.choice(list("ACGT"), size=20)) for _ in range(60)]
    data = write_table(tmp_path / "mine.csv", texts, ["10", "9", "2"] * 20)
    done = fit(MOTIF, tmp_path / "run", *SMALL, f"data.name={data}", "data.max_length=15")
    assert done.results["classes"] == ["2", "9", "10"]
    assert done.results["rows"] == {"train": 48, "validation": 6, "test": 6}
    data.unlink()
    source = write_table(tmp_path / "new.csv", texts[:5])
    answer = run_cli("predict", done.checkpoint, "--input", source, "--out", tmp_path / "out.csv")
    assert answer.status == 0, answer.err
    assert "5 of 5 sequences are cut at data.max_length=15 bases" in answer.out
    assert pl.read_csv(tmp_path / "out.csv").columns[2:] == ["probability_2", "probability_9", "probability_10"]


def test_custom_columns_and_rna(tmp_path: Path) -> None:
    rng = np.random.default_rng(10)
    rows = [f"{''.join(rng.choice(list('ACGU'), size=20))},{'xy'[k % 2]},{k // 4}" for k in range(60)]
    (tmp_path / "mine.csv").write_text("\n".join(["rna,kind,family", *rows]) + "\n")
    overrides = ["data.sequence=rna", "data.label=kind", "data.group=family", "data.unit=group", "data.rna=true"]
    done = fit(MOTIF, tmp_path / "run", *SMALL, f"data.name={tmp_path / 'mine.csv'}", *overrides)
    assert done.results["classes"] == ["x", "y"]
    assert all(rows % 4 == 0 for rows in done.results["rows"].values()), "a family is in several splits"


def test_windows_of_a_genome_are_split_by_chromosome(tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    genome, bed = tmp_path / "genome.fa", tmp_path / "windows.bed"
    genome.write_text("".join(f">chr{k}\n{''.join(rng.choice(list('ACGT'), size=500))}\n" for k in (1, 2, 3)))
    lines = [
        f"chr{k}\t{start}\t{start + 10}\t{'ab'[start % 20 // 10]}" for k in (1, 2, 3) for start in range(30, 430, 10)
    ]
    bed.write_text("\n".join(lines) + "\n")
    overrides = [
        "data.unit=chromosome",
        "data.validation_chromosomes=[2]",
        "data.test_chromosomes=[chr3]",
        "data.length=24",
    ]
    overrides += [f"data.name={genome}", f"data.bed={bed}"]
    answer = run_cli("fit", MOTIF, *TWO_STEPS, *SMALL, *overrides, f"run.dir={tmp_path / 'no'}")
    assert "held-out chromosome '2' has no rows; expected one of: chr1 (40 rows)" in answer.err
    overrides[1] = "data.validation_chromosomes=[chr2]"
    done = fit(MOTIF, tmp_path / "run", *SMALL, *overrides)
    assert done.results["rows"] == {"train": 40, "validation": 40, "test": 40}
    assert done.results["classes"] == ["a", "b"]


def test_data_with_other_classes_are_an_error(small: Finished, refuse: Refuse, tmp_path: Path) -> None:
    data = write_table(tmp_path / "mine.csv", ["ACGT"] * 30, ["a", "b", "c"] * 10)
    line = refuse("test", small.checkpoint, f"data.name={data}")
    assert "trained on the classes background, motif; mine.csv has a, b, c" in line


def test_prediction_file_errors(small: Finished, refuse: Refuse, tmp_path: Path) -> None:
    (tmp_path / "empty.csv").write_text("id,sequence\n")
    (tmp_path / "rna.csv").write_text("sequence\nACGU\n")
    for name, part in (("nowhere.fa", "no such file"), ("empty.csv", "no sequences"), ("rna.csv", "data.rna")):
        line = refuse("predict", small.checkpoint, "--input", tmp_path / name, "--out", "out.parquet")
        assert name in line
        assert part in line
    source = write_table(tmp_path / "few.csv", ["ACGT", "AC", "A"])
    line = refuse("predict", small.checkpoint, "--input", source, "--out", "o.csv", "trainer.limit_batches=1")
    assert "all sequences of a file are predicted" in line


def test_class_names_are_not_parsed_as_mathtext(tmp_path: Path) -> None:
    texts = PlantedMotif().load().train.sequences.texts()[:60]
    data = write_table(tmp_path / "mine.csv", texts, ["a$x_$b/c", "_$^"] * 30)
    done = fit(MOTIF, tmp_path / "run", *SMALL, f"data.name={data}")
    assert done.results["classes"] == ["_$^", "a$x_$b/c"]


def test_class_missing_in_a_split_is_an_error(refuse: Refuse, tmp_path: Path) -> None:
    texts = PlantedMotif().load().train.sequences.texts()[:40]
    data = write_table(tmp_path / "mine.csv", texts, ["rare"] + ["often"] * 39)
    line = refuse("fit", MOTIF, *SMALL, f"data.name={data}")
    assert "rare" in line
    for split, wanted in (("dev", "validation"), ("test", "test")):
        folder = tmp_path / split
        folder.mkdir()
        for name in ("train", "dev", "test"):
            write_table(folder / f"{name}.csv", texts, ["a", "a" if name == split else "b"] * 20)
        line = refuse("fit", MOTIF, *SMALL, f"data.name={folder}")
        assert f"none of the 40 {wanted} rows is of class b: MCC, AUROC and AUPRC are undefined there" in line


def test_holdout_keys_without_effect_are_errors(refuse: Refuse, tmp_path: Path) -> None:
    cases = {
        "data.test_chromosomes=[chr1]": "requires data.unit=chromosome; got data.unit=row",
        "data.group=family": "requires data.unit=group, which keeps groups together",
        "data.unit=chromosome data.folds=5": "cannot be combined with data.unit=chromosome",
    }
    for override, part in cases.items():
        assert part in refuse("fit", MOTIF, *override.split())
    texts = PlantedMotif().load().train.sequences.texts()[:40]
    for name in ("train", "dev", "test"):
        write_table(tmp_path / f"{name}.csv", texts, ["a", "b"] * 20)
    for override in ("folds=5", "unit=chromosome", "unit=group"):
        assert f"already has validation and test rows; remove data.{override.partition('=5')[0]}" in refuse(
            "fit", MOTIF, f"data.name={tmp_path}", f"data.{override}"
        )
    (tmp_path / "dev.csv").unlink()
    places = [f"{text},{'ab'[row % 2]},chr{row % 4},{row},{row + 9}" for row, text in enumerate(texts)]
    (tmp_path / "train.csv").write_text("\n".join(["sequence,label,region,start,end", *places]) + "\n")
    overrides = ["data.unit=chromosome", "data.validation_chromosomes=[chr1]", "data.test_chromosomes=[chr2]"]
    line = refuse("fit", MOTIF, f"data.name={tmp_path}", *overrides)
    assert "already has test rows; remove data.test_chromosomes" in line
    data = tmp_path / "grouped.csv"
    rows = [f"{text},{'ab'[row % 2]},{row // 4}" for row, text in enumerate(texts)]
    data.write_text("\n".join(["sequence,label,group", *rows]) + "\n")
    done = fit(MOTIF, tmp_path / "run", *SMALL, f"data.name={data}")
    assert "rows have groups, which a split by row may separate; set data.unit=group to keep them whole" in done.printed


def test_data_keys_without_effect_are_errors(refuse: Refuse, tmp_path: Path) -> None:
    (tmp_path / "a.fa").write_text(">r1 label=a\nACGT\n>r2 label=b\nGGTT\n")
    (tmp_path / "labels.csv").write_text("id,label\nr1,a\nr2,b\n")
    write_table(tmp_path / "a.csv", ["ACGT", "GG"], ["a", "b"])
    (tmp_path / "a.bed").write_text("r1\t0\t4\ta\n")
    fasta, labelled = f"data.name={tmp_path / 'a.fa'}", f"data.labels={tmp_path / 'labels.csv'}"
    for overrides in (
        ["data.within=test"],
        ["data.name=tf/0", "data.sequence=dna"],
        ["data.name=human_enhancers_cohn", "data.rna=true"],
        [f"data.name={tmp_path / 'a.csv'}", labelled],
        [fasta, "data.label=kind"],
        [fasta, "data.beyond=N"],
        [fasta, labelled, "data.header_label='=(.)'"],
        [fasta, f"data.bed={tmp_path / 'a.bed'}", "data.label=kind"],
    ):
        assert f"{overrides[-1].partition('=')[0]}=" in (line := refuse("fit", MOTIF, *overrides))
        assert "has no effect with data.name=" in line


def test_groups_that_cross_given_splits_are_noted(tmp_path: Path) -> None:
    for name, groups in (("train", "gggh"), ("dev", "iij"), ("test", "hhk")):
        rows = [f"ACG{'ACGT'[i]},{'ab'[i % 2]},{group}" for i, group in enumerate(groups)]
        (tmp_path / f"{name}.csv").write_text("\n".join(["sequence,label,group", *rows]) + "\n")
    splits = open_data(str(tmp_path)).load()
    assert splits.notes == ("train.csv: 2 of 3 test rows are of groups that also occur in train",)
    assert splits.train.groups is not None
    assert splits.train.groups.tolist() == [0, 0, 0, 1]


def test_forecasters_do_not_support_input_files(refuse: Refuse, tmp_path: Path) -> None:
    from tests.experiment.run.test_checkpoints import save_checkpoint

    path = save_checkpoint(tmp_path / "small.ckpt")
    assert "--input" in refuse("predict", path, "--input", "x.csv", "--out", "out.parquet")


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_genomic_benchmark_runs_from_its_official_layout(tmp_path: Path, name: str) -> None:
    root = write_official(tmp_path / "data", name, rows=20)
    done = fit(OFFICIAL, tmp_path / "run", *SMALL, f"data.name={name}", f"data.root={root}")
    classes = list(BENCHMARKS[name].classes)
    assert done.results["classes"] == classes
    rows = 20 * len(classes)
    assert done.results["rows"] == {"train": rows - rows // 10, "validation": rows // 10, "test": rows}


@pytest.mark.parametrize("name", ["human_enhancers_cohn", "human_nontata_promoters"])
def test_folds_within_a_test_file_keep_groups_whole(tmp_path: Path, data_root: Path, name: str) -> None:
    overrides = [f"data.name={name}", f"data.root={data_root}"]
    total, seen = BENCHMARKS[name].test, []
    for fold in range(5):
        splits = build_experiment(load_config([WITHIN], [*overrides, f"data.fold={fold}"])).data.splits
        groups = [set(rows.groups.tolist()) for rows in (splits.train, splits.validation, splits.test)]
        assert sum(map(len, groups)) == len(set.union(*groups))
        assert len(splits.train) + len(splits.validation) + len(splits.test) == total
        seen += splits.test.sequences.texts()
    assert len(seen) == total, "every row must be tested once"
    done = fit(WITHIN, tmp_path / "run", *SMALL, *overrides, "data.fold=4")
    assert done.results["rows"]["test"] == pytest.approx(total / 5, rel=0.02)


def test_baselines_are_evaluated_on_the_rows_of_the_model(small: Finished) -> None:
    results = small.results
    assert results["simulated"] is True
    assert "simulated DNA, made by this program; best possible accuracy 0.99" in small.printed
    names = ["majority class", "length alone", "copies of training rows", "frequencies of bases"]
    assert list(results["baselines"]) == [*names, "frequencies of pairs of bases"]
    splits = PlantedMotif().load()
    assert splits.test is not None
    assert results["test_rows"] == 32  # two batches of 16, as for the model
    order = np.argsort(splits.test.sequences.lengths, kind="stable")[: results["test_rows"]]
    constant = results["baselines"]["majority class"]
    assert constant["test/accuracy"] == pytest.approx((splits.test.labels[order] == 0).mean())
    assert constant["test/mcc"] == 0
    lines = small.printed.splitlines()
    for name, scores in [("LMM", results), *results["baselines"].items()]:
        (line,) = [line for line in lines if line.startswith(f"{name} ") and "parameters" not in line]
        numbers = [f"{scores[key]:.4f}" for key in ("test/accuracy", "test/mcc", "test/f1")]
        assert line.removeprefix(name).split()[:3] == numbers


def test_duplicates_of_training_rows_are_reported_once(tmp_path: Path) -> None:
    rng = np.random.default_rng(6)
    texts = ["".join(rng.choice(list("ACGT"), size=20)) for _ in range(60)]
    folder = tmp_path / "data"
    folder.mkdir()
    write_table(folder / "train.csv", texts, ["a", "b"] * 30)
    flipped = [slow_reverse_complement(text) for text in texts[4:7]]
    write_table(folder / "test.csv", [*texts[:4], *flipped, *(text[::-1] for text in texts[7:20])], ["a", "b"] * 10)
    overrides = [f"data.name={folder}", "data.fraction=0.05", "trainer.limit_batches=0"]
    done = fit(MOTIF, tmp_path / "run", *SMALL, *overrides)
    copied = done.results["test_rows_in_train"]
    assert 5 <= copied <= 7  # validation rows are cut from the training rows
    assert done.printed.count(f"{copied} of 20 test rows duplicate training rows, on either strand") == 1


def test_changed_data_are_reported(tmp_path: Path) -> None:
    """The splits are drawn again, so training rows may be in the test split."""
    rng = np.random.default_rng(8)
    texts = ["".join(rng.choice(list("ACGT"), size=20)) for _ in range(80)]
    data = write_table(tmp_path / "mine.csv", texts[:60], ["a", "b"] * 30)
    done = fit(MOTIF, tmp_path / "run", *SMALL, f"data.name={data}", "data.fraction=0.2")
    arguments = ("test", done.checkpoint)
    note = "note: the data of mine.csv, or their splits, have changed since the training"
    assert note not in run_cli(*arguments).err
    assert note in run_cli(*arguments, "data.holdout_seed=1").err
    write_table(tmp_path / "mine.csv", texts, ["a", "b"] * 40)
    assert note in run_cli(*arguments).err
    assert note in run_cli("predict", done.checkpoint, "--out", tmp_path / "p.csv").err


def test_duplicates_are_counted_as_the_model_reads_the_rows(tmp_path: Path) -> None:
    """Rows are compared after truncation to max_length, and on both strands only if the model reads both."""
    texts = random_dna([20] * 40, seed=6)
    longer, flipped = (text + "ACGT" for text in texts[:8]), (slow_reverse_complement(text) for text in texts[8:14])
    rows = {"train": texts[:20], "validation": texts[20:], "test": [*longer, *flipped, *random_dna([20] * 6, seed=7)]}
    for split, own in rows.items():
        write_table(tmp_path / f"{split}.csv", own, ["a", "b"] * (len(own) // 2))
    for longest, strands, copied in ((None, "both_averaged", 6), (20, "both_averaged", 14), (20, "one", 8)):
        overrides = [f"data.name={tmp_path}", f"data.max_length={longest or 'null'}", f"model.strand={strands}"]
        experiment = build_experiment(load_config([MOTIF], [*overrides, "data.both_strands=false"]))
        assert experiment.metadata()["test_rows_in_train"] == copied
        accuracy = experiment.baselines()["copies of training rows"]["test/accuracy"]
        assert accuracy >= (copied + 3) / 20  # three of the six other rows have the majority class


def test_run_is_reproducible_and_depends_on_the_seed(small: Finished, tmp_path: Path) -> None:
    again, other = fit(MOTIF, tmp_path / "again", *SMALL), fit(MOTIF, tmp_path / "other", *SMALL, "seed=1")
    losses = [each.results["test/loss"] for each in (small, again, other)]
    assert losses[0] == losses[1] != losses[2]
    assert small.results["baselines"] == other.results["baselines"]


def test_checkpoint_selection_uses_the_monitored_metric(tmp_path: Path) -> None:
    # Steps so large that the loss grows, so that the lowest loss is an early one, whatever the accuracy.
    overrides = [*SMALL, "task.monitor=loss", "task.learning_rate=1.0", "task.warmup_steps=0", "trainer.max_steps=8"]
    done = fit(MOTIF, tmp_path / "run", *overrides)
    with (done.folder / "metrics.csv").open() as file:
        losses = [float(row["val/loss"]) for row in csv.DictReader(file) if row["val/loss"]]
    assert len(losses) >= 3
    assert done.results["best_val/loss"] == min(losses) < max(losses)
    assert math.isclose(measure(done.checkpoint, "validation", [SAME_ROWS])["val/loss"], min(losses), rel_tol=1e-5)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_runs(tmp_path: Path, variant: str) -> None:
    sizes = ["model.segment_length=8", "model.attention.window=8", "model.attention.num_heads=2"]
    done = fit(
        MOTIF, tmp_path / "run", *for_variant([*SMALL, *sizes, f"model.variant={variant}"]), "trainer.limit_batches=1"
    )
    assert variant.upper() in done.printed


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_learns_the_motif_and_mutagenesis_locates_it(tmp_path: Path, variant: str) -> None:
    steps = ["trainer.progress_bar=false", "trainer.accelerator=cpu", "logging.wandb=off"]
    model = CONFIGS / "model" / f"{variant}.yaml"
    answer = run_cli("fit", MOTIF, model, *steps, "model.dropout=0", f"run.dir={tmp_path / 'run'}")
    assert answer.status == 0, answer.err
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert 0.95 < results["test/accuracy"] <= BEST_ACCURACY + 0.01
    text = "".join(np.random.default_rng(9).choice(list("ACGT"), size=80))
    place = 33
    text = text[:place] + PLANTED + text[place + len(PLANTED) :]
    source = write_table(tmp_path / "one.csv", [text])
    checkpoint = tmp_path / "run" / "checkpoints" / "best.ckpt"
    out = tmp_path / "changes.csv"
    assert run_cli("mutagenesis", checkpoint, "--input", source, "--out", out).status == 0
    effects = pl.read_csv(out).group_by("position").agg(pl.col("effect_motif").mean()).sort("effect_motif")
    # Of the eight positions with the strongest effects, at least six are in the motif.
    lowest = effects["position"][: len(PLANTED)].to_numpy() - 1
    assert ((lowest >= place) & (lowest < place + len(PLANTED))).sum() >= 6
