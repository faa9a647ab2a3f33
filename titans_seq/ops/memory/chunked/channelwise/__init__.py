"""Chunked memory with one forget gate per input channel."""
