"""A suite: a grid of experiments and the published numbers to print beside them, read from one YAML file.

    name: small                       # results are kept below benchmarks/results/<name>
    base: [logging.wandb=off]         # words of every cell: config files, relative to the suite, and key=value
    axes:                             # the first changes slowest; words of later ones go on top
      seed: [0, 1, 2]                 # a list: the axis is the key
      data: {ETTh1: etth1.yaml}       # a mapping: labels to words
      data.horizon: [96, 192]
      model: {LMM: [], Transformer: [../model/transformer.yaml, task.learning_rate=1e-3]}
    leave_out: [{model: Transformer, seed: [1, 2]}]
    table:
      rows: [data, model]             # the last of them is what published rows name
      columns: data.horizon
      metrics: {test/mse: MSE}        # keys of results.json to headings
      facts: {context_length: lookback}  # optional: what else of results.json a row shows
      mean: true                      # optional: a column with the mean over the others, seed by seed
      decimals: 3                     # optional
      baselines: true                 # optional: rows for the baselines that every run measures
    published:
      - name: Titans LMM
        facts: {context_length: not stated}
        values: {ETTh1: {mean: [.420]}}   # labels of the rows but the last, then columns, then metrics
    pages: [../docs/results.md]       # optional: the tables are written there too, between their markers

An axis named `seed`, or `fold` in its place, is what means and spreads are taken over.
"""

from titans_seq.studies.suite.grid import MEAN, Cell, Published, Suite, Table
from titans_seq.studies.suite.reading import read_suite

__all__ = ["MEAN", "Cell", "Published", "Suite", "Table", "read_suite"]
