"""DNA: from sequence files and genomes to batches of tokens."""
