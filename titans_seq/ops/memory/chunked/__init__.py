"""Chunked memory in plain PyTorch: chunks in sequence, the tokens of a chunk in parallel, as matmuls."""
