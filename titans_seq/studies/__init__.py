"""Many runs: seeds, sweeps, comparisons, suites. Imports nothing, so that a suite or sweep is read without torch."""
