"""Draws `docs/bench.svg` from the figures of the last run."""

import json

from servers import FIGURES, ROOT

WIDTH, ROW, LEFT, RIGHT = 760, 24, 170, 90
OURS, THEIRS = "#07a050", "#9aa5b1"
FRAME = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
    'font-family="sans-serif" font-size="13" fill="#333">\n<title>{title}</title>\n'
    '<rect width="100%" height="100%" fill="#fff"/>\n{rows}\n</svg>\n'
)


def rows(title, figures, top):
    """The heading and a bar for each figure, as SVG."""
    yield f'<text x="12" y="{top + 20}" font-weight="bold">One text message {title}</text>'
    scale = (WIDTH - LEFT - RIGHT) / max(figures.values())
    for number, (name, figure) in enumerate(sorted(figures.items(), key=lambda item: item[1])):
        y = top + ROW * (number + 2)
        yield f'<text x="{LEFT - 8}" y="{y}" text-anchor="end">{name}</text>'
        yield f'<rect x="{LEFT}" y="{y - 13}" height="16" width="{figure * scale:.1f}" fill="{colour(name)}"/>'
        yield f'<text x="{LEFT + figure * scale + 6:.1f}" y="{y}">{figure:,.0f}</text>'


def colour(name):
    return OURS if name == "ours" else THEIRS


def draw(tables):
    """The whole picture, one table below the other."""
    lines, top = [], 0
    for title, figures in tables.items():
        lines += rows(title, figures, top)
        top += ROW * (len(figures) + 2)
    return FRAME.format(width=WIDTH, height=top + 8, title=" and ".join(tables), rows="\n".join(lines))


if __name__ == "__main__":
    (ROOT / "docs/bench.svg").write_text(draw(json.loads(FIGURES.read_text())), "utf-8")
