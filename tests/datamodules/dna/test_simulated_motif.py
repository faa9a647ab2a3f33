"""The built-in dataset of DNA with a planted motif has the documented properties."""

import numpy as np

from datamodules.dna.classification.datamodule import SequenceDataModule
from datamodules.dna.datasets.simulated_motif import BEST_ACCURACY, MOTIF, PlantedMotif

OPPOSITE = MOTIF[::-1].translate(str.maketrans("ACGT", "TGCA"))


def test_motif_predicts_99_percent_of_the_labels() -> None:
    splits = PlantedMotif().load()
    assert splits.classes.names == ("background", "motif")
    seen: set[str] = set()
    for rows, count in ((splits.train, 4000), (splits.validation, 1000), (splits.test, 1000)):
        assert rows is not None
        texts = rows.sequences.texts()
        assert len(texts) == count
        assert np.bincount(rows.labels).tolist() == [count // 2, count // 2]
        holds = np.array([MOTIF in text or OPPOSITE in text for text in texts])
        assert (holds == (rows.labels == 1)).mean() == BEST_ACCURACY
        # Either strand, any position, and lengths that are independent of the class.
        forward = np.array([MOTIF in text for text in texts])
        assert 0.4 < forward[holds].mean() < 0.6
        places = np.array([max(text.find(MOTIF), text.find(OPPOSITE)) for text in texts])[holds]
        assert places.min() < 3
        assert places.max() > 88
        assert {min(map(len, texts)), max(map(len, texts))} == {60, 100}
        assert not seen & set(texts)
        seen |= set(texts)
    assert sorted(MOTIF) == sorted("ACGT" * 2)
    assert MOTIF != OPPOSITE


def test_dataset_is_reproducible_and_works_with_the_data_module() -> None:
    data = SequenceDataModule(PlantedMotif(), batch_size=8)
    data.setup()
    assert data.rows("train").sequences.texts() == PlantedMotif().load().train.sequences.texts()
    assert data.class_counts.tolist() == [2000, 2000]
