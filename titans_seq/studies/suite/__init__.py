"""A suite: a grid of runs and the published numbers to compare them with, read from one YAML file.

    name: small                       # results are written to benchmarks/results/<name>
    base: [logging.wandb=off]         # of every run: config files (relative to the suite) and key=value overrides
    axes:                             # the first changes slowest; settings of later axes override earlier ones
      seed: [0, 1, 2]                 # a list: the axis is a key, with these values
      data: {ETTh1: etth1.yaml}       # a mapping: labels to config files and overrides
      data.horizon: [96, 192]
      model: {LMM: [], Transformer: [../model/transformer.yaml, task.learning_rate=1e-3]}
    leave_out: [{model: Transformer, seed: [1, 2]}]
    table:
      rows: [data, model]             # names of published rows replace the label of the last one
      columns: data.horizon
      metrics: {test/mse: MSE}        # keys of results.json and their headings
      facts: {context_length: lookback}  # optional: further keys of results.json to show
      mean: true                      # optional: a column with the mean over the others, per seed
      decimals: 3                     # optional
      baselines: true                 # optional: rows for the baselines that every run measures
    published:
      - name: Titans LMM
        facts: {context_length: not stated}
        values: {ETTh1: {mean: [.420]}}   # labels of all rows but the last, then columns, then metrics
    pages: [../docs/results.md]       # optional: pages to write the tables into, between markers

Means and standard deviations are taken over the axis named `seed`, or `fold`.
"""

from titans_seq.studies.suite.grid import MEAN, Cell, Published, Suite, Table
from titans_seq.studies.suite.reading import read_suite

__all__ = ["MEAN", "Cell", "Published", "Suite", "Table", "read_suite"]
