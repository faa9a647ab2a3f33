"""The pre-trained forecaster: its weights, forecasts of arrays, tables and streams, and the start of fine-tuning."""
