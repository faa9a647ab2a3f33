"""Time series: from tables to the windows of a forecaster."""
