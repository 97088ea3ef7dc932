"""How long answers took: in a line of text, and as SVG."""

import argparse
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from html import escape
from pathlib import Path
from typing import NamedTuple

WIDTH, HEIGHT = 820, 460
LEFT, RIGHT, TOP, BOTTOM = 70, 790, 60, 390  # the sides of the plot, from the upper left corner
BINS = 10  # bars in a decade
FOOT = 0.3  # of a decade, below a count of one: a single message stays visible
PERCENTILES = {"median": 50, "90 %": 90, "99 %": 99, "99.9 %": 99.9, "longest": 100}
X_LABEL, Y_LABEL = "latency of the answered attempt (log scale)", "messages (log scale)"

FRAME = f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" \
font-family="sans-serif" font-size="13" fill="#333">
<title>%s</title>
<rect width="100%%" height="100%%" fill="#fff"/>
<text x="{WIDTH / 2}" y="28" font-size="16" text-anchor="middle">%s</text>
%s
<text x="{(LEFT + RIGHT) / 2}" y="{BOTTOM + 48}" text-anchor="middle">{X_LABEL}</text>
<text transform="translate(20 {(TOP + BOTTOM) / 2}) rotate(-90)" text-anchor="middle">{Y_LABEL}</text>
</svg>
"""


class Chart(NamedTuple):
    """What is drawn: `latencies` and the `limit` after which WeChat hangs up, both in seconds."""

    title: str
    latencies: list[float]
    limit: float


class Scale(NamedTuple):
    """Where a value from `low` to `high` is drawn: between `start` and `end`."""

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        """The place of the value."""
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def percentiles(latencies: Iterable[float]) -> str:
    """The percentiles of at least one latency in seconds, in milliseconds; nearest rank."""
    ordered = sorted(latencies)
    ranks = {name: max(1, math.ceil(len(ordered) * rank / 100)) for name, rank in PERCENTILES.items()}
    return ", ".join(f"{name} {1000 * ordered[rank - 1]:,.1f}" for name, rank in ranks.items())


def plot_file(name: str) -> Path:
    """The file that `--plot` names; ArgumentTypeError where nothing can be drawn into it."""
    path = Path(name)
    if path.suffix != ".svg":
        raise argparse.ArgumentTypeError(f"{name!r} is not an .svg")
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {str(path.parent)!r}")
    return path


def to_svg(chart: Chart) -> str:
    """The chart as an SVG document; the line at the limit has the id `limit`."""
    title, values = escape(chart.title), [0.001, *chart.latencies, chart.limit]
    counts = Counter(math.floor(math.log10(seconds) * BINS) for seconds in chart.latencies)
    top = max(1, math.ceil(math.log10(max(counts.values(), default=1))))
    low, high = math.floor(math.log10(min(values))), math.floor(math.log10(max(values))) + 1
    x, y = Scale(low, high, LEFT, RIGHT), Scale(-FOOT, top, BOTTOM, TOP)
    parts = [*_y_axis(y, top), *_bars(x, y, counts), *_x_axis(x, low, high), *_limit(x, chart.limit)]
    return FRAME % (title, title, "\n".join(parts))


def _y_axis(y: Scale, top: int) -> Iterator[str]:
    for exponent in range(top + 1):
        yield f'<path d="M{LEFT} {y.at(exponent):.1f}H{RIGHT}" stroke="#ddd"/>'
        yield f'<text x="{LEFT - 8}" y="{y.at(exponent) + 4:.1f}" text-anchor="end">{10**exponent:,}</text>'


def _bars(x: Scale, y: Scale, counts: Counter[int]) -> Iterator[str]:
    for number, count in sorted(counts.items()):
        start, end, above = number / BINS, (number + 1) / BINS, y.at(math.log10(count))
        yield (
            f'<rect class="bar" x="{x.at(start):.1f}" y="{above:.1f}" width="{x.at(end) - x.at(start) - 1:.1f}" '
            f'height="{BOTTOM - above:.1f}" fill="#3b7dd8"><title>{count:,} in {_time(10**start)} to {_time(10**end)}'
            "</title></rect>"
        )


def _x_axis(x: Scale, low: int, high: int) -> Iterator[str]:
    yield f'<path d="M{LEFT} {BOTTOM}H{RIGHT}" stroke="#333"/>'
    for exponent in range(low, high + 1):
        digits = range(2, 10) if exponent < high else ()
        ticks = "".join(f"M{x.at(exponent + math.log10(digit)):.1f} {BOTTOM}v4" for digit in digits)
        yield f'<path d="M{x.at(exponent):.1f} {BOTTOM}v8{ticks}" stroke="#333"/>'
        yield f'<text x="{x.at(exponent):.1f}" y="{BOTTOM + 24}" text-anchor="middle">{_time(10.0**exponent)}</text>'


def _limit(x: Scale, limit: float) -> Iterator[str]:
    limit_x, red = x.at(math.log10(limit)), "#c62828"
    line = f'x1="{limit_x:.1f}" y1="{TOP - 8}" x2="{limit_x:.1f}" y2="{BOTTOM}"'
    yield f'<line id="limit" {line} stroke="{red}" stroke-width="2" stroke-dasharray="6 4"/>'
    label = f"{limit:g} s: WeChat hangs up"
    yield f'<text x="{limit_x - 6:.1f}" y="{TOP - 4}" fill="{red}" text-anchor="end">{label}</text>'


def _time(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds > 0.999 else f"{seconds * 1000:.3g} ms"
