"""Simple forecasts on the same pairs of tokens and leads as the universal forecaster's."""

from collections.abc import Iterable

from titans_seq.batch import SeriesBatch
from titans_seq.experiment.base import Scores
from titans_seq.models.universal.candidates import LAST_SEASON, LAST_VALUE, candidate_forecasts
from titans_seq.models.universal.context import Context, take
from titans_seq.tasks.universal import compress, forecast_pairs


def measure_naive_forecasts(batches: Iterable[SeriesBatch], random_leads: int, max_lead: int) -> dict[str, Scores]:
    """Return the scaled absolute errors of the last value and of the last season, over all batches.

    The season is the nominal period, which may be wrong; without one it is the last value.
    """
    totals, count = {"last value": 0.0, "seasonal naive": 0.0}, 0
    for index, batch in enumerate(batches):
        context = Context(batch.values.double(), batch.period)
        pairs = forecast_pairs(context, random_leads, max_lead, index)
        candidates = candidate_forecasts(context, pairs.token, pairs.lead)
        scale = context.scale(pairs.token).unsqueeze(-1)
        centre = take(context.mean, pairs.token).float().unsqueeze(-1)
        target = compress((pairs.target - centre) / scale)
        count += int(pairs.scored.sum())
        for name, which in zip(totals, (LAST_VALUE, LAST_SEASON), strict=True):
            errors = (target - compress((candidates[:, :, which] - centre) / scale)).abs()
            totals[name] += float(errors[pairs.scored].sum())
    return {name: {"test/mae": total / max(count, 1)} for name, total in totals.items()}
