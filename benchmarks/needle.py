"""Needles in a haystack of bytes: trained at up to 1,024 bytes, tested at 1K to 2M (Titans, arXiv 2501.00663).

    python benchmarks/needle.py                 # resumes: skips finished runs
    python benchmarks/needle.py --report        # results/needle.json, docs/needle.md, docs/needle*.png
    python benchmarks/needle.py --arms lmm_online mal --hay text    # a part of the grid
    python benchmarks/needle.py --ablations     # the 1,500-step ablations instead

Haystacks (`haystack/hiding.py`; what is hidden is at uniformly random places, all of it is asked at the end):
    bytes      four pairs [MARK] key value in random bytes; question [ASK] key, then the value. Keys are 32 bytes,
               values 32 others (chance 1/32), noise is drawn from 126 more
    passkey    a number of five digits in a filler that repeats
    text       a number of five digits and a word of five letters in the sources of Python's standard library; no file
               is both in training and in test
    pairs      1 to 64 pairs in random bytes, with 64 keys: one training, tested at each number

Arms (`haystack/models.py`) have some 31,000 parameters: a matrix memory, one layer of width 32, chunks, windows and
segments of 16, so that recall needs the memory from the shortest length on. Attention alone has two layers: one cannot
bind a value to the key before it. In text all have two: the gates of one layer see the current byte alone.

One budget for all (`haystack/training.py`), set for 1,500 steps on seed 100 with the arms lmm and mac; here 6,000:
first at 32 bytes (128 in text and filler), where recall is learned, then at growing lengths up to 1,024, where
retention is learned. Two further budgets are for random bytes and chunk gradients: "far" puts 8,192 bytes of noise,
read without a gradient, before the questions of the last steps; "penalty" adds the mean of the gates to the loss once
the length grows. Tests run in pieces of 1,024 bytes and pass on the state, so 2M needs no more memory than 1K. Settings
that did not learn are in `LOG.md`.

Every cell writes one JSON to `results/needle/long/` and is skipped if it exists; weights go to `runs/needle/`, and a
run that was stopped during its test does not train again.
"""

import argparse

import torch
from haystack import pictures, report
from haystack.cells import ablations, grid, run
from haystack.hiding import HAYSTACKS
from haystack.models import ARMS
from haystack.training import BUDGETS
from record import record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--report", action="store_true", help="write page and figures from existing results")
    parser.add_argument("--ablations", action="store_true", help="run the ablations instead")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--gates", nargs="+", choices=("closing", "sigmoid"), default=["closing", "sigmoid"])
    parser.add_argument("--hay", nargs="+", choices=HAYSTACKS, default=list(HAYSTACKS))
    parser.add_argument("--training", nargs="+", choices=BUDGETS, default=list(BUDGETS))
    parser.add_argument("--seeds", nargs="+", type=int, default=None)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.report:
        record("needle", rows := report.summary())
        report.write_page(rows)
        if any(row["budget"] == "long" for row in rows):
            pictures.picture(rows)
        pictures.ablations(rows)
        return
    wanted = vars(options)
    for cell in ablations() if options.ablations else grid():
        asked = {field: wanted[field] for field in cell._fields if field in wanted}
        asked |= {"seed": options.seeds} if options.seeds else {}
        if all(getattr(cell, field) in values for field, values in asked.items()) and not cell.path().exists():
            print(cell, run(cell).get("answer", ""), flush=True)


if __name__ == "__main__":
    main()
