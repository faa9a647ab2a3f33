"""Zero-shot benchmark of pre-trained forecasters: data, metrics, baselines and the page of results."""
