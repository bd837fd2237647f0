"""How the cost of packed training grows with length, batch, rank and rows: one JSON, and a figure drawn from it.

    python benchmarks/scaling.py minilm -o benchmarks/results/DATE-scaling-minilm.json --figure docs/figures/scaling

One axis at a time, the others as in the seed recipe (batch 16, rank 4, rows of AG News' lengths). Each point is a process
of its own, so its peak memory is its own. Run it on an idle machine, or for its memory alone:

    python benchmarks/scaling.py minilm --axis "training rows" --untimed -o benchmarks/results/DATE-memory-rows-minilm.json

A figure of what was measured on different days, each number from the last file that has it:

    python benchmarks/scaling.py --drawn-from RESULT [RESULT...] --figure docs/figures/scaling

"memory" is the process's peak over what it held after its imports, pages of mapped files included, which the system may
take back; "anonymous" is the peak of what it cannot (RssAnon), imports included.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
from made_up import scratch

from newslora import files
from newslora.bench.run import measure_apart
from newslora.bench.worker import Job
from newslora.data.store import Spool, chunks, write_columns
from newslora.report.drawing import Drawing, Theme, new_figure, write_figure
from newslora.runtime import environment_record, pick_device, resolve_precision

AXES = {
    "tokens a row": (16, 32, 64, 128, 256, 512),
    "rows a batch": (1, 4, 16, 64, 256),
    "LoRA rank": (1, 4, 16, 64, 256),
    "training rows": (10_000, 100_000, 1_000_000, 10_000_000),
}
TOKENS_ON_THE_CLOCK = 40_000

Axes = dict[str, list[dict[str, Any]]]  # name -> its points


def write_rows(path: Path, count: int, length: int | None) -> float:
    """Random rows of one length, or of AG News' lengths; returns their mean length."""
    generator = np.random.default_rng(0)
    ids, offsets, labels = Spool(np.int32), Spool(np.int64), Spool(np.int64)
    offsets.add(0)
    end = 0
    for start, stop in chunks(count):
        lengths = np.clip(generator.gamma(5.5, 53 / 5.5, stop - start), 12, 300).astype(np.int64)
        if length is not None:
            lengths[:] = length
        ends = end + np.cumsum(lengths)
        offsets.extend(ends)
        ids.extend(generator.integers(5, 20_000, int(ends[-1]) - end, dtype=np.int32))
        labels.extend(generator.integers(0, 4, stop - start))
        end = int(ends[-1])
    columns = {"ids": ids.array(), "offsets": offsets.array(), "labels": labels.array(), "pad_id": np.array([0])}
    write_columns(path, columns, {})
    return end / count


def measure_point(backbone: str, variant: str, axis: str, value: int, folder: Path, timed: bool) -> dict[str, Any]:
    batch = value if axis == "rows a batch" else 16
    length = value if axis == "tokens a row" else None
    rows_file = folder / "rows.safetensors"
    mean = write_rows(rows_file, value if axis == "training rows" else 10_000, length)
    steps = max(4, round(TOKENS_ON_THE_CLOCK / (batch * mean)))
    rank = value if axis == "LoRA rank" else 4
    job = Job(backbone, "training", variant, str(rows_file), batch, max(2, steps // 2), steps, rank=rank)
    result = measure_apart(job)
    rates = {
        "rows_per_second": result["rows"] / result["seconds"],
        "tokens_per_second": result["tokens"] / result["seconds"],
    }
    return {
        "value": value,
        **(rates if timed else {}),
        "memory": result["memory_peak"] - (result["memory_before"] or 0),
        "anonymous": result["anonymous_peak"],
        "file": rows_file.stat().st_size,
        "steps": steps,
    }


def draw_into(figure: Path, axes: Axes) -> None:
    """The figure as PNG and SVG, light and dark."""
    write_figure(figure.parent, figure.name, lambda theme: draw(axes, theme))


def draw(axes: Axes, theme: Theme) -> Drawing:
    """Rows a second against length, batch, rank and rows; anonymous memory against rows."""
    figure = new_figure(7.2, 5.0, theme)
    figure.set_layout_engine("constrained", w_pad=0.08, h_pad=0.08)
    panels = [*((axis, "rows_per_second") for axis in AXES), ("training rows", "anonymous")]
    lines: Any = figure.subfigures(2, 1)
    for line, some in zip(lines, (panels[:3], panels[3:]), strict=True):
        line.set_facecolor(theme.paper)
        for place, (axis, key) in enumerate(some, 1):
            points = [point for point in axes.get(axis, []) if key in point]
            if points:
                draw_panel(line.add_subplot(1, len(some), place, facecolor=theme.paper), axis, key, points, theme)
    return Drawing(figure)


def draw_panel(panel: Any, axis: str, key: str, points: list[dict[str, Any]], theme: Theme) -> None:
    many, memory = axis == "training rows", key == "anonymous"
    values = [point["value"] for point in points]
    heights = [point[key] / 2**20 if memory else point[key] for point in points]
    panel.plot(values, heights, "o-", color=theme.second, markersize=4, linewidth=1.4, clip_on=False)
    panel.set_xscale("log", base=10 if many else 2)
    ticks = AXES[axis]  # also where nothing was measured, so that panels of one axis are as wide
    panel.set_xticks(ticks, [f"{tick // 10**6}M" if tick >= 10**6 else f"{tick:,}" for tick in ticks])
    panel.minorticks_off()
    widen = (ticks[-1] / ticks[0]) ** 0.05
    panel.set_xlim(ticks[0] / widen, ticks[-1] * widen)
    panel.set_ylim(0, max(heights) * 1.15)
    panel.yaxis.set_major_formatter("{x:,.0f}")
    panel.set_xlabel(axis, color=theme.ink, fontsize=9)
    panel.set_ylabel("anonymous memory (MiB)" if memory else "rows a second", color=theme.ink, fontsize=9)
    panel.tick_params(colors=theme.soft, labelsize=8)
    panel.grid(color=theme.grid, linewidth=0.6)
    panel.set_axisbelow(True)
    for side, spine in panel.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(theme.soft)


def latest(kept: list[Axes]) -> Axes:
    """Each axis of the last result that has it, each of its points with what earlier results alone tell of it."""
    axes: Axes = {}
    for one in kept:
        for axis, points in one.items():
            known = {point["value"]: point for point in axes.get(axis, [])}
            axes[axis] = [known.get(point["value"], {}) | point for point in points]
    return axes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("backbone", nargs="?", default="minilm")
    parser.add_argument("-o", "--output", type=Path, help="file of the result")
    parser.add_argument("--figure", type=Path, help="path of the figure without its suffix")
    parser.add_argument("--drawn-from", type=Path, nargs="+", help="results to draw; nothing is measured")
    parser.add_argument("--axis", choices=AXES, help="one axis only")
    parser.add_argument("--untimed", action="store_true", help="memory only: the machine is not idle")
    chosen = parser.parse_args()
    if chosen.drawn_from:
        if chosen.figure is None:
            parser.error("--drawn-from needs --figure")
        draw_into(chosen.figure, latest([files.read_json(path)["axes"] for path in chosen.drawn_from]))
        return
    if chosen.output is None:
        parser.error("-o is missing: the file of the result")
    device = pick_device("cpu")
    precision = resolve_precision("auto", device)
    axes: Axes = {}
    with scratch() as folder:
        for axis in [chosen.axis] if chosen.axis else AXES:
            for value in AXES[axis]:
                variant = f"newslora-{precision.name}"
                point = measure_point(chosen.backbone, variant, axis, value, Path(folder), not chosen.untimed)
                axes.setdefault(axis, []).append(point)
                rate = "" if chosen.untimed else f"{point['rows_per_second']:.1f} rows/s, "
                print(f"{axis} {value:,}: {rate}{(point['anonymous'] or 0) / 2**20:,.0f} MiB anonymous", flush=True)
    result = {
        "what": f"packed training of {chosen.backbone}, random weights, one axis at a time",
        "environment": environment_record(device, precision),
        "timed": not chosen.untimed,
        "axes": axes,
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    files.write_json(chosen.output, result)
    if chosen.figure:
        draw_into(chosen.figure, axes)


if __name__ == "__main__":
    main()
