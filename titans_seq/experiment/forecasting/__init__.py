"""The forecasting task: experiment, baselines, intervals, forecast and backtest."""
