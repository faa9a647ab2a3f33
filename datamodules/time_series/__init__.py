"""Time series data: reading tables, encoding features and cutting windows for a forecaster."""
