"""Milliseconds a series of the simulated series' mixture and of each of its families, on one core.

Batches of 64 series of 256 to 2,048 steps; the families alone at 2,048 steps, eight at a time, about as many as a batch
has. Time is the process's CPU time, the median over rounds. As machines differ, it is also given in units of the time
that numpy takes to draw as many normal numbers as the series has steps.

    OMP_NUM_THREADS=1 python benchmarks/simulated_speed.py
"""

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
from record import record

from datamodules.time_series.simulated.mixture import MIXTURE, simulate

SERIES, FAMILY_SERIES = 64, 8
LENGTHS = (256, 512, 1024, 2048)
Draw = Callable[[np.random.Generator, int, int], object]


def milliseconds(draw: Draw, series: int, length: int, rounds: int) -> float:
    """Median CPU time a series; one round more is not counted."""
    rng = np.random.default_rng(0)
    seconds = []
    for _ in range(rounds + 1):
        start = time.process_time()
        draw(rng, series, length)
        seconds.append(time.process_time() - start)
    return 1e3 * statistics.median(seconds[1:]) / series


def normals(rng: np.random.Generator, series: int, length: int) -> np.ndarray:
    return rng.standard_normal((series, length))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40)
    rounds = parser.parse_args().rounds
    mixture = []
    for length in LENGTHS:
        taken = milliseconds(simulate, SERIES, length, rounds)
        peer = milliseconds(normals, SERIES, length, rounds)
        mixture.append({"length": length, "milliseconds": round(taken, 3), "times_normals": round(taken / peer, 1)})
        print(f"mixture, {length} steps: {taken:.2f} ms a series, {taken / peer:.1f} times drawing normal numbers")
    families = {}
    for name, (_, simulate_family) in MIXTURE.items():
        families[name] = round(milliseconds(simulate_family, FAMILY_SERIES, LENGTHS[-1], rounds), 3)
        print(f"{name}, {LENGTHS[-1]} steps: {families[name]:.2f} ms a series")
    record("simulated_speed", {"mixture": mixture, f"families_{LENGTHS[-1]}": families})


if __name__ == "__main__":
    main()
