"""Draw docs/method.svg: how the memory writes and reads, and the four models that use it.

python docs/make_method.py
"""

from html import escape
from pathlib import Path

WIDTH, HEIGHT = 1140, 420
MEMORY, ATTENTION, TOKEN, PLAIN = "#cfe2f3", "#fce5cd", "#eeeeee", "#d9f0e3"
LEFT, RIGHT = 560, 580  # the first panel ends at LEFT, the second begins at RIGHT


def text(x: float, y: float, words: str, kind: str = "text") -> str:
    """Return a line of text, centred on x unless its class aligns it differently."""
    return f'<text x="{x:.0f}" y="{y:.0f}" class="{kind}">{escape(words)}</text>'


def box(x: float, y: float, width: float, height: float, colour: str, *lines: str) -> list[str]:
    """Return a box with centre (x, y); the first line of its text is bold."""
    top = y - 7 * (len(lines) - 1) + 4
    return [
        f'<rect x="{x - width / 2:.0f}" y="{y - height / 2:.0f}" width="{width:.0f}" height="{height:.0f}" rx="5" '
        f'fill="{colour}" stroke="#555"/>',
        *(text(x, top + 15 * i, line, "text" if i else "name") for i, line in enumerate(lines)),
    ]


def arrow(*points: tuple[float, float], dashed: bool = False) -> str:
    """Return an arrow through the points, with its head at the last one."""
    path = " ".join(f"{'L' if i else 'M'}{x:.0f} {y:.0f}" for i, (x, y) in enumerate(points))
    dash = ' stroke-dasharray="4 3"' if dashed else ""
    return f'<path d="{path}" fill="none" stroke="#333" stroke-width="1.3" marker-end="url(#head)"{dash}/>'


def memory_panel() -> list[str]:
    """Draw one token: its key, value and gates write, its query reads."""
    chain, source, tokens = 178, 290, 372
    before, write, after = 66, 246, 432
    lines = [
        text(16, 28, "The memory: a small network M that trains while it reads", "head"),
        *box(before, chain, 92, 58, MEMORY, "M", "weights W"),
        *box(write, chain, 208, 96, PLAIN),
        text(write, chain - 26, "write: a gradient step", "name"),
        *box(after, chain, 112, 58, MEMORY, "M", "new weights W"),
        *box(write, source, 208, 44, TOKEN, "key, value, gates", "lr, momentum, forget"),
        *box(after, source, 112, 44, TOKEN, "query"),
        *box(after, 76, 112, 36, TOKEN, "output"),
        *box(342, tokens, 92, 36, TOKEN, "token"),
        text(before, chain + 46, "from the token"),
        text(before, chain + 60, "before"),
        text(LEFT - 33, chain - 22, "to the"),
        text(LEFT - 33, chain - 8, "next token"),
        text(after - 8, 128, "read: M(q)", "end"),
    ]
    lines += [
        text(write, chain - 6, "error = ‖M(k) - v‖²"),
        text(write, chain + 14, "S ← momentum · S - lr · ∇error"),
        text(write, chain + 34, "W ← (1 - forget) · W + S"),
        arrow((before + 46, chain), (write - 104, chain)),
        arrow((write + 104, chain), (after - 56, chain)),
        arrow((after + 56, chain), (LEFT - 2, chain)),
        arrow((write, source - 22), (write, chain + 48)),
        arrow((after, source - 22), (after, chain + 29)),
        arrow((after, chain - 29), (after, 94)),
        arrow((296, tokens), (write, tokens), (write, source + 22)),
        arrow((388, tokens), (after, tokens), (after, source + 22)),
    ]
    return lines


def models_panel() -> list[str]:
    """Draw LMM, MAL, MAG and MAC, from the tokens at the bottom to the output at the top."""
    bottom, top, low, high = 330, 76, 258, 152
    lmm, mal, mag, mac = 630, 734, 866, 1040
    lines = [text(RIGHT + 4, 28, "Four models: where the memory sits", "head")]
    names = {
        lmm: ("LMM", "memory alone"),
        mal: ("MAL", "as a layer"),
        mag: ("MAG", "as a gate"),
        mac: ("MAC", "as context"),
    }
    for x, (name, words) in names.items():
        lines += [
            *box(x, bottom, 62, 28, TOKEN, "tokens"),
            *box(x, top, 62, 28, TOKEN, "output"),
            text(x, 372, name, "name"),
            text(x, 389, words),
        ]
    middle = (low + high) / 2
    lines += [
        *box(lmm, middle, 72, 36, MEMORY, "memory"),
        arrow((lmm, bottom - 14), (lmm, middle + 18)),
        arrow((lmm, middle - 18), (lmm, top + 14)),
        *box(mal, low, 76, 36, MEMORY, "memory"),
        *box(mal, high, 76, 36, ATTENTION, "attention"),
        arrow((mal, bottom - 14), (mal, low + 18)),
        arrow((mal, low - 18), (mal, high + 18)),
        arrow((mal, high - 18), (mal, top + 14)),
        *box(mag - 40, low - 20, 72, 36, MEMORY, "memory"),
        *box(mag + 40, low - 20, 80, 36, ATTENTION, "attention"),
        *box(mag, high, 48, 28, PLAIN, "gate"),
        arrow((mag, bottom - 14), (mag, 296), (mag - 40, 296), (mag - 40, low - 2)),
        arrow((mag, bottom - 14), (mag, 296), (mag + 40, 296), (mag + 40, low - 2)),
        arrow((mag - 40, low - 38), (mag - 40, high), (mag - 24, high)),
        arrow((mag + 40, low - 38), (mag + 40, high), (mag + 24, high)),
        arrow((mag, high - 14), (mag, top + 14)),
        *box(mac - 36, low, 72, 36, MEMORY, "memory"),
        *box(mac, high, 84, 36, ATTENTION, "attention"),
        arrow((mac, bottom - 14), (mac, 296), (mac - 36, 296), (mac - 36, low + 18)),
        arrow((mac, bottom - 14), (mac, 296), (mac + 24, 296), (mac + 24, high + 18)),
        arrow((mac - 24, low - 18), (mac - 24, high + 18)),
        arrow((mac, high - 18), (mac, top + 14)),
        arrow((mac + 42, high), (mac + 66, high), (mac + 66, low), (mac, low), dashed=True),
        text(mac + 46, low + 16, "write"),
        text(mac - 31, 214, "read", "end"),
    ]
    return lines


def page() -> str:
    """Return the drawing as SVG."""
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif">',
        "<title>The memory writes by a gradient step and reads by a query; LMM, MAL, MAG and MAC use it</title>",
        "<style>.name{font-size:13px;font-weight:bold;text-anchor:middle}.text{font-size:12px;text-anchor:middle}"
        ".end{font-size:12px;text-anchor:end}.head{font-size:15px;font-weight:bold}</style>",
        '<defs><marker id="head" markerWidth="8" markerHeight="8" refX="7" refY="4" orient="auto">'
        '<path d="M0 0 L8 4 L0 8 z" fill="#333"/></marker></defs>',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<path d="M{RIGHT - 10} 20 V{HEIGHT - 20}" stroke="#bbb"/>',
        *memory_panel(),
        *models_panel(),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    path = Path(__file__).with_name("method.svg")
    path.write_text(page())
    print(path)
