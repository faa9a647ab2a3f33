"""DNA datasets: published ones, the user's files, and simulated ones."""
