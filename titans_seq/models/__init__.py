"""Complete models, from the tensors of a batch to predictions: plain torch modules that a task trains."""
