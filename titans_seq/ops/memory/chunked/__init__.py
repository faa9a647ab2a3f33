"""The memory at matmul speed in plain PyTorch: chunks in sequence, tokens of a chunk in parallel."""
