"""Lightning data modules: from files to the batches of `titans_seq.batch`."""
