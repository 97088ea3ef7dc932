"""How long answers took: in a line of text, as SVG, and as PNG where matplotlib is installed."""

from __future__ import annotations

import argparse
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from html import escape
from importlib import import_module
from pathlib import Path

from wechat.settings import package_fault

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


@dataclass(frozen=True)
class Chart:
    """What is drawn: `latencies` and the `limit` after which WeChat hangs up, both in seconds."""

    title: str
    latencies: list[float]
    limit: float

    @property
    def decades(self) -> tuple[int, int]:
        """The powers of ten between which everything lies."""
        values = [0.001, *self.latencies, self.limit]
        return math.floor(math.log10(min(values))), math.floor(math.log10(max(values))) + 1

    @property
    def limit_label(self) -> str:
        """What stands beside the line at the limit."""
        return f"{self.limit:g} s: WeChat hangs up"


def percentiles(latencies: Iterable[float]) -> str:
    """The percentiles of at least one latency in seconds, in milliseconds; nearest rank."""
    ordered = sorted(latencies)
    ranks = {name: max(1, math.ceil(len(ordered) * rank / 100)) for name, rank in PERCENTILES.items()}
    return ", ".join(f"{name} {1000 * ordered[rank - 1]:,.1f}" for name, rank in ranks.items())


def plot_file(name: str) -> Path:
    """The file that `--plot` names; ArgumentTypeError where nothing can be drawn into it."""
    path = Path(name)
    if path.suffix not in (".svg", ".png"):
        raise argparse.ArgumentTypeError(f"{name!r} is neither a .png nor a .svg")
    if path.suffix == ".png" and (fault := package_fault("matplotlib.figure")):
        raise argparse.ArgumentTypeError(f"a .png {fault}; a .svg needs none")
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {str(path.parent)!r}")
    return path


def draw(chart: Chart, path: Path) -> None:
    """Writes the chart, as the name ends."""
    if path.suffix == ".png":
        _draw_png(chart, path)
    else:
        path.write_text(to_svg(chart), "utf-8")


def to_svg(chart: Chart) -> str:
    """The chart as an SVG document; the line at the limit has the id `limit`."""
    title = escape(chart.title)
    counts = Counter(math.floor(math.log10(seconds) * BINS) for seconds in chart.latencies)
    top = max(1, math.ceil(math.log10(max(counts.values(), default=1))))
    parts = [*_y_axis(top), *_bars(chart, counts, top), *_x_axis(chart), *_limit(chart)]
    return FRAME % (title, title, "\n".join(parts))


def _x(chart: Chart, exponent: float) -> float:
    low, high = chart.decades
    return LEFT + (exponent - low) / (high - low) * (RIGHT - LEFT)


def _y(exponent: float, top: int) -> float:
    return BOTTOM - (exponent + FOOT) / (top + FOOT) * (BOTTOM - TOP)


def _y_axis(top: int) -> Iterator[str]:
    for exponent in range(top + 1):
        y = _y(exponent, top)
        yield f'<path d="M{LEFT} {y:.1f}H{RIGHT}" stroke="#ddd"/>'
        yield f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{10**exponent:,}</text>'


def _bars(chart: Chart, counts: Counter[int], top: int) -> Iterator[str]:
    for number, count in sorted(counts.items()):
        x, end, y = _x(chart, number / BINS), _x(chart, (number + 1) / BINS), _y(math.log10(count), top)
        span = f"{_time(10 ** (number / BINS))} to {_time(10 ** ((number + 1) / BINS))}"
        yield (
            f'<rect class="bar" x="{x:.1f}" y="{y:.1f}" width="{end - x - 1:.1f}" height="{BOTTOM - y:.1f}" '
            f'fill="#3b7dd8"><title>{count:,} in {span}</title></rect>'
        )


def _x_axis(chart: Chart) -> Iterator[str]:
    low, high = chart.decades
    yield f'<path d="M{LEFT} {BOTTOM}H{RIGHT}" stroke="#333"/>'
    for exponent in range(low, high + 1):
        x = _x(chart, exponent)
        yield f'<path d="M{x:.1f} {BOTTOM}v8" stroke="#333"/>'
        yield f'<text x="{x:.1f}" y="{BOTTOM + 24}" text-anchor="middle">{_time(10.0**exponent)}</text>'
    for exponent in range(low, high):
        for digit in range(2, 10):
            yield f'<path d="M{_x(chart, exponent + math.log10(digit)):.1f} {BOTTOM}v4" stroke="#333"/>'


def _limit(chart: Chart) -> Iterator[str]:
    x = _x(chart, math.log10(chart.limit))
    yield (
        f'<line id="limit" x1="{x:.1f}" y1="{TOP - 8}" x2="{x:.1f}" y2="{BOTTOM}" stroke="#c62828" '
        'stroke-width="2" stroke-dasharray="6 4"/>'
    )
    yield f'<text x="{x - 6:.1f}" y="{TOP - 4}" fill="#c62828" text-anchor="end">{chart.limit_label}</text>'


def _time(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds > 0.999 else f"{seconds * 1000:.3g} ms"


def _draw_png(chart: Chart, path: Path) -> None:
    # Optional, and not among the packages that mypy sees.
    figure = import_module("matplotlib.figure").Figure((WIDTH / 100, HEIGHT / 100), layout="constrained")
    axes = figure.subplots()
    low, high = chart.decades
    edges = [10 ** (number / BINS) for number in range(low * BINS, high * BINS + 1)]
    axes.hist(chart.latencies, edges, log=True, rwidth=0.9)
    axes.axvline(chart.limit, color="#c62828", linestyle="--", label=chart.limit_label)
    axes.set(title=chart.title, xlabel=X_LABEL, ylabel=Y_LABEL, xscale="log", xlim=(10.0**low, 10.0**high))
    axes.set_ylim(bottom=10**-FOOT)
    axes.xaxis.set_major_formatter(lambda seconds, _: _time(seconds))
    axes.legend()
    figure.savefig(path, dpi=150)
