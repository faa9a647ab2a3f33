"""Draw docs/architecture.svg: the packages in layers, each importing only from layers below it.

python docs/make_architecture.py
"""

from html import escape
from pathlib import Path

WIDTH, MARGIN, GAP, ROW = 980, 16, 10, 52

# From top to bottom: rows of (package, description), with the colour of the row.
ROWS: list[tuple[str, list[tuple[str, str]]]] = [
    ("#dbe9f6", [("cli", "one Command record per command")]),
    ("#dbe9f6", [("studies", "many runs: seeds, sweeps, comparisons, suites")]),
    (
        "#d9f0e3",
        [
            ("experiment: fit, evaluate, export, doctor", "one run"),
            ("experiment/registry", "the only module that knows all tasks"),
        ],
    ),
    (
        "#d9f0e3",
        [
            ("experiment/forecasting", "one folder per task;"),
            ("experiment/classification", "tasks never import"),
            ("experiment/pretraining", "each other;"),
            ("experiment/universal", "one model for any series"),
        ],
    ),
    (
        "#d9f0e3",
        [
            ("experiment/run", "the engine: trains any Experiment"),
            ("experiment/base", "Experiment: the interface of a task"),
        ],
    ),
    (
        "#fdebd0",
        [("callbacks", "checkpoints, NaN guard, logs"), ("tasks", "LightningModules: loss, metrics, optimiser")],
    ),
    ("#fdebd0", [("models", "stem, backbone and head"), ("backbone", "LMM, MAL, MAG, MAC, ..."), ("nn", "layers")]),
    ("#fdebd0", [("ops", "titans_memory: reference, chunked, triton; needs torch alone")]),
    (
        "#eeeeee",
        [
            ("config", "YAML, overrides"),
            ("shipped", "configs by name"),
            ("schema", "keys, bounds"),
            ("plots", "palette, frame"),
            ("system", "files, signals"),
            ("batch, errors", ""),
        ],
    ),
]
# The second package, used by `experiment` alone.
DATA: list[list[tuple[str, str]]] = [
    [("time_series", "tables to windows"), ("dna", "files to token batches")],
    [("common", "loading, splitting, downloads")],
]


def box(x: float, y: float, width: float, height: float, colour: str, name: str, text: str) -> list[str]:
    """Return a labelled box."""
    middle = x + width / 2
    lines = [
        f'<rect x="{x:.0f}" y="{y:.0f}" width="{width:.0f}" height="{height:.0f}" rx="5" fill="{colour}" '
        'stroke="#555"/>',
        f'<text x="{middle:.0f}" y="{y + (21 if text else 29):.0f}" class="name">{escape(name)}</text>',
    ]
    return [*lines, f'<text x="{middle:.0f}" y="{y + 38:.0f}" class="text">{escape(text)}</text>'] if text else lines


def row(x: float, y: float, width: float, colour: str, boxes: list[tuple[str, str]]) -> list[str]:
    """Return boxes side by side."""
    each = (width - GAP * (len(boxes) - 1)) / len(boxes)
    return [
        line
        for i, (name, text) in enumerate(boxes)
        for line in box(x + i * (each + GAP), y, each, 46, colour, name, text)
    ]


def page() -> str:
    """Return the drawing as SVG."""
    left, data_width = 640, WIDTH - 640 - 3 * MARGIN
    height = MARGIN + 30 + len(ROWS) * ROW + MARGIN
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif">',
        "<title>Packages of titans_seq in layers; imports point down</title>",
        "<style>.name{font-size:13px;font-weight:bold;text-anchor:middle}.text{font-size:11px;text-anchor:middle}"
        ".head{font-size:15px;font-weight:bold}</style>",
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
        f'<text x="{MARGIN}" y="{MARGIN + 12}" class="head">titans_seq: imports point down or right</text>',
    ]
    top = MARGIN + 26
    for i, (colour, boxes) in enumerate(ROWS):
        lines += row(MARGIN, top + i * ROW, left, colour, boxes)
    x, y = left + 2 * MARGIN, top + 4 * ROW
    lines.append(f'<text x="{x}" y="{y - 6}" class="head">datamodules</text>')
    for i, boxes in enumerate(DATA):
        lines += row(x, y + i * ROW, data_width, "#f6dfe3", boxes)
    arrow, middle = top + 3 * ROW + 23, x + data_width / 2
    lines += [
        f'<path d="M{MARGIN + left} {arrow} H{middle:.0f} v14 m-4 -5 l4 5 l4 -5" fill="none" stroke="#555"/>',
        f'<text x="{middle:.0f}" y="{arrow - 8}" class="text">only experiment imports datamodules,</text>',
        f'<text x="{middle:.0f}" y="{y + 2 * ROW + 14}" class="text">which imports only batch and errors</text>',
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    path = Path(__file__).with_name("architecture.svg")
    path.write_text(page())
    print(path)
