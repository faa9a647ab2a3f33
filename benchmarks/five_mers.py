"""Logistic regression on 5-mer frequencies, on the folds of configs/genomics/genomic_benchmarks_within_suite.yaml.

A baseline for tables of deep models on DNA. The ridge penalty is chosen on each fold's validation rows by MCC.
"""

import statistics
from pathlib import Path

from record import record

from datamodules.dna.audit.shortcuts import KmerCompositionClassifier, score
from datamodules.dna.classification.datamodule import SequenceDataModule
from titans_seq.experiment.classification.experiment import ClassificationExperiment
from titans_seq.studies.suite import read_suite

SUITE = Path(__file__).parents[1] / "configs/genomics/genomic_benchmarks_within_suite.yaml"
RIDGES = (300.0, 1000.0, 3000.0, 10000.0, 30000.0)


def fold_scores(data: SequenceDataModule) -> dict[str, float]:
    train, validation, test = (data.rows(split) for split in ("train", "validation", "test"))
    classes = len(data.class_names)
    best, chosen, answer = -1.0, 0.0, test.labels
    for ridge in RIDGES:
        model = KmerCompositionClassifier(train.sequences, train.labels, classes, k=5, ridge=ridge)
        found = score("validation", "5-mers", validation.labels, model(validation.sequences), classes).mcc
        if found > best:
            best, chosen, answer = found, ridge, model(test.sequences)
    measured = score("test", "5-mers", test.labels, answer, classes)
    return {"ridge": chosen, "val/mcc": best, "test/accuracy": measured.accuracy, "test/mcc": measured.mcc}


def main() -> None:
    suite = read_suite(SUITE)
    figures = []
    for name in suite.axes["set"]:
        folds = []
        for cell in suite.select([f"set={name}", "model=LMM"]):
            folds.append(fold_scores(ClassificationExperiment(cell.load_config()).data))
            print(name, cell.labels["fold"], folds[-1], flush=True)
        row = {}
        for metric in ("test/accuracy", "test/mcc"):
            values = [fold[metric] for fold in folds]
            row[metric] = {"mean": statistics.fmean(values), "standard_deviation": statistics.stdev(values)}
        figures.append({"set": name, **row, "folds": folds})
    record("five_mers", figures)


if __name__ == "__main__":
    main()
