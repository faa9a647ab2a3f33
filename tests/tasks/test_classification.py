"""The classification task: loss, metrics, checkpoint selection and stored test predictions."""

import numpy as np
import pytest
import torch

from titans_seq.batch import SequenceBatch
from titans_seq.config import load_config, to_container
from titans_seq.tasks.classification import ClassificationTask, classification_metrics, label_metrics

SMALL = ["task.name=classification", "model.dim=8", "model.num_layers=1", "model.memory.num_heads=2"]
SMALL += ["model.dropout=0", "model.head_dropout=0"]


def make(*overrides: str, counts: tuple[int, ...] = (30, 10)) -> ClassificationTask:
    torch.manual_seed(0)
    names = [f"class {k}" for k in range(len(counts))]
    task = ClassificationTask(to_container(load_config([], [*SMALL, *overrides])), names, list(counts))
    task.log = task.log_dict = lambda *_, **__: None  # there is no trainer
    return task


def batch(num_classes: int = 2) -> SequenceBatch:
    rng = np.random.default_rng(2)
    tokens = torch.from_numpy(rng.integers(4, size=(6, 12)))
    labels = torch.arange(6) % num_classes
    return SequenceBatch(tokens, torch.ones_like(tokens, dtype=torch.bool), labels, torch.arange(6))


@pytest.mark.parametrize("num_classes", [2, 3])
def test_metrics_equal_a_computation_by_hand(num_classes: int) -> None:
    rng = np.random.default_rng(3)
    scores = rng.normal(size=(400, num_classes))
    labels = rng.integers(num_classes, size=400)
    scores[np.arange(400), labels] += 0.7
    probabilities = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    metrics = classification_metrics(num_classes, "test")
    for part in np.array_split(np.arange(400), 3):
        metrics.update(torch.from_numpy(probabilities[part]), torch.from_numpy(labels[part]))
    found = {name: float(value) for name, value in metrics.compute().items()}

    predicted = probabilities.argmax(axis=1)
    table = np.zeros((num_classes, num_classes))
    np.add.at(table, (labels, predicted), 1)
    hits, true_counts, predicted_counts = np.diag(table), table.sum(axis=1), table.sum(axis=0)
    spread = np.sqrt((400**2 - predicted_counts @ predicted_counts) * (400**2 - true_counts @ true_counts))
    tested = [1] if num_classes == 2 else range(num_classes)
    expected = {
        "accuracy": hits.sum() / 400,
        "f1": np.mean(2 * hits / (true_counts + predicted_counts)),
        "mcc": (hits.sum() * 400 - true_counts @ predicted_counts) / spread,
        "auroc": np.mean([auroc(probabilities[:, k], labels == k) for k in tested]),
        "auprc": np.mean([average_precision(probabilities[:, k], labels == k) for k in tested]),
    }
    assert found == pytest.approx({f"test/{name}": value for name, value in expected.items()}, abs=1e-5)

    plain = label_metrics(num_classes, "test")
    plain.update(torch.from_numpy(predicted), torch.from_numpy(labels))
    for name, value in plain.compute().items():
        assert float(value) == pytest.approx(found[name], abs=1e-6)


def auroc(scores: np.ndarray, positive: np.ndarray) -> float:
    """Fraction of (positive, negative) pairs in which the positive has the higher score."""
    return float((scores[positive][:, None] > scores[~positive]).mean())


def average_precision(scores: np.ndarray, positive: np.ndarray) -> float:
    """Mean over the positives of the precision at their rank."""
    ranked = positive[np.argsort(-scores)]
    return float((np.cumsum(ranked) / np.arange(1, len(ranked) + 1))[ranked].mean())


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("balanced", [False, True])
def test_loss_uses_class_weights_and_label_smoothing(smoothing: float, balanced: bool) -> None:
    overrides = [f"task.label_smoothing={smoothing}", f"task.class_weights={'balanced' if balanced else 'none'}"]
    task, data = make(*overrides).eval(), batch()
    logs = task(data.tokens, data.mask).log_softmax(dim=1)
    target = torch.full((6, 2), smoothing / 2)
    target[torch.arange(6), data.labels] += 1 - smoothing
    # 30 and 10 of 40 rows: class weights 40 / (2 * 30) and 40 / (2 * 10).
    weights = torch.tensor([2 / 3, 2.0]) if balanced else torch.ones(2)
    expected = -(weights * target * logs).sum() / 6
    torch.testing.assert_close(task.training_step(data, 0), expected)


def test_balanced_classes_have_equal_weight_for_any_batch_composition() -> None:
    """90 and 10 rows of two classes, in batches of one class each, as bucketing by length may produce."""
    balanced, plain = (make(f"task.class_weights={key}", counts=(90, 10)).eval() for key in ("balanced", "none"))
    parts = [batch()._replace(labels=torch.full((6,), label)) for label in (0, 1)]
    weights = [(balanced.training_step(part, 0) / plain.training_step(part, 0)).item() for part in parts]
    assert 90 * weights[0] == pytest.approx(10 * weights[1])


def test_checkpoint_selection_uses_the_configured_metric() -> None:
    assert (make().monitor, make().mode) == ("val/mcc", "max")
    assert (make("task.monitor=loss").monitor, make("task.monitor=loss").mode) == ("val/loss", "min")


def test_predictions_are_the_scores() -> None:
    task, data = make(counts=(1, 2, 3)).eval(), batch(3)
    rows, scores = task.predict_step(data, 0)
    assert rows.tolist() == list(range(6))
    torch.testing.assert_close(scores, task(data.tokens, data.mask))


def test_test_predictions_are_those_of_the_last_test() -> None:
    task, data = make().eval(), batch()
    for _ in range(2):
        task.on_test_start()
        task.test_step(data, 0)
    ((probabilities, labels),) = task.test_predictions
    torch.testing.assert_close(probabilities, task.predict_step(data, 0)[1].softmax(dim=1))
    assert labels.tolist() == data.labels.tolist()


def test_class_weights_are_not_in_the_state_dict() -> None:
    assert make().state_dict().keys() == make("task.class_weights=balanced").state_dict().keys()


@pytest.mark.parametrize("num_classes", [2, 3])
def test_mcc_of_constant_predictions_is_zero(num_classes: int) -> None:
    metrics = label_metrics(num_classes, "test")
    metrics.update(torch.zeros(10, dtype=torch.long), torch.tensor([0] * 7 + [1] * 3))
    assert float(metrics.compute()["test/mcc"]) == 0
