"""Many runs: seeds, sweeps, comparisons, suites. Imports nothing, so that reading a suite or sweep needs no torch."""
