"""Time series datasets: published ones, the user's table, and a simulated one."""
