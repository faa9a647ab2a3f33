"""Universal forecaster: one set of weights for any series, from statistics, periods and candidates of its past."""
