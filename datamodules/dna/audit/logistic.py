"""Multinomial logistic regression with a ridge penalty, by Newton's method: small, exact and deterministic."""

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]

_MAX_STEPS = 50
_TOLERANCE = 1e-8  # relative improvement of the objective below which the iteration stops


class Logistic:
    """Fitted multinomial logistic regression: class scores linear in standardised features."""

    def __init__(self, features: Matrix, labels: NDArray[np.int64], num_classes: int, *, ridge: float = 1.0) -> None:
        """Fit `features` (n, F) to `labels` (n,): the sum of log losses plus ridge / 2 times the squared weights.

        The intercept is not penalised. Features are standardised by their own mean and standard deviation.
        """
        self.mean = features.mean(axis=0)
        std = features.std(axis=0)
        # A constant feature carries no information; rounding leaves it a standard deviation of about 1e-17.
        self.scale = np.where(std > 1e-12, 1 / np.maximum(std, 1e-12), 0.0)
        x = self._design(features)
        truth = np.eye(num_classes)[labels]
        self.weights = np.zeros((x.shape[1], num_classes))
        penalty = np.full(x.shape[1], float(ridge))
        penalty[-1] = 1e-6 * len(x)  # makes the solution unique: scores are determined only up to a constant
        value, probability = _objective(x, truth, self.weights, penalty)
        for _ in range(_MAX_STEPS):
            step = _newton_step(x, truth, probability, self.weights, penalty)
            size = 1.0
            while True:
                candidate = self.weights - size * step
                new, new_probability = _objective(x, truth, candidate, penalty)
                if new <= value or size < 1e-6:
                    break
                size /= 2
            gain, value = value - new, new
            self.weights, probability = candidate, new_probability
            if gain <= _TOLERANCE * abs(value):
                break

    def predict(self, features: Matrix) -> NDArray[np.int64]:
        """Most likely class of each row, (n,)."""
        likeliest: NDArray[np.int64] = (self._design(features) @ self.weights).argmax(axis=1)
        return likeliest

    def _design(self, features: Matrix) -> Matrix:
        return np.column_stack([(features - self.mean) * self.scale, np.ones(len(features))])


def _objective(x: Matrix, truth: Matrix, weights: Matrix, penalty: Matrix) -> tuple[float, Matrix]:
    """Value of the objective to be minimised, and the class probabilities (n, K)."""
    scores = x @ weights
    scores -= scores.max(axis=1, keepdims=True)
    exponentials = np.exp(scores)
    total = exponentials.sum(axis=1)
    loss = np.log(total).sum() - (scores * truth).sum()
    return float(loss + 0.5 * (penalty[:, None] * weights**2).sum()), exponentials / total[:, None]


def _newton_step(x: Matrix, truth: Matrix, probability: Matrix, weights: Matrix, penalty: Matrix) -> Matrix:
    """Inverse Hessian times gradient, (F + 1, K)."""
    features, classes = weights.shape
    gradient = x.T @ (probability - truth) + penalty[:, None] * weights
    hessian = np.empty((classes, features, classes, features))
    for a in range(classes):
        for b in range(a, classes):
            curvature = probability[:, a] * ((a == b) - probability[:, b])
            hessian[a, :, b, :] = hessian[b, :, a, :] = (x * curvature[:, None]).T @ x
    flat = hessian.reshape(classes * features, classes * features)
    flat[np.diag_indices_from(flat)] += np.tile(penalty, classes)
    step = np.linalg.solve(flat, gradient.T.ravel()).astype(np.float64)
    return step.reshape(classes, features).T
