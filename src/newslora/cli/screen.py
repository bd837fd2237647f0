"""What a person sees: progress while training, tables afterwards."""

import time
from typing import TYPE_CHECKING, Any

from newslora.cli.common import new_table
from newslora.data.lines import visible

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from newslora.config import Recipe
    from newslora.plan import Plan


class ProgressWatcher:
    """A bar with loss, accuracy, samples a second and time left; one line an epoch above it."""

    def __init__(self, console: "Console") -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self.console = console
        self._bar = Progress(
            TextColumn("step"),
            MofNCompleteColumn(),
            BarColumn(bar_width=24),
            TextColumn("loss {task.fields[loss]}  accuracy {task.fields[accuracy]}  {task.fields[rate]} samples/s"),
            TimeRemainingColumn(compact=True),
            TextColumn("left"),
            console=console,
            transient=True,
        )
        self._task: Any = None
        self._loss = 0.0
        self._clock = _Clock()

    def start(self, total_steps: int, done_steps: int) -> None:
        if done_steps:
            self.note(f"Continuing after step {done_steps:,} of {total_steps:,}")
        self._task = self._bar.add_task("", total=total_steps, completed=done_steps, loss="-", accuracy="-", rate="-")
        self._bar.start()

    def step(self, rows: int, loss: float) -> None:
        self._loss = loss if self._loss == 0 else 0.95 * self._loss + 0.05 * loss  # smoothed over some 20 steps
        rate = self._clock.rate(rows)
        self._bar.update(self._task, advance=1, loss=f"{self._loss:.3f}", rate=f"{rate:,.0f}" if rate else "-")

    def epoch(self, entry: dict[str, Any]) -> None:
        from rich.text import Text

        accuracy = f"{entry['validation_accuracy']:.2%}"
        self._bar.update(self._task, accuracy=accuracy)
        kept = "  best so far" if entry["best"] else ""
        recalls = [(value, name) for name, value in entry["validation_recall"].items() if value is not None]
        lowest = f", lowest recall {min(recalls)[0]:.2%} ({min(recalls)[1]})" if recalls else ""
        told = (
            f"epoch {entry['epoch']}: training loss {entry['train_loss']:.4f}, validation loss "
            f"{entry['validation_loss']:.4f}, accuracy {accuracy}, macro F1 {entry['validation_macro_f1']:.2%}{lowest}"
        )
        self.console.print(Text.assemble(visible(told), (kept, "green")))
        self._clock = _Clock()  # evaluation is no training time

    def note(self, text: str) -> None:
        self.console.print(text)

    warn = note

    def stop(self) -> None:
        self._bar.stop()


class RowsProgress:
    """A bar of the source read, with rows, rows a second and time left; what an earlier sitting did is no speed of this one."""

    def __init__(self, console: "Console") -> None:
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

        self._bar = Progress(
            BarColumn(bar_width=24),
            TaskProgressColumn(),
            TextColumn("{task.fields[rows]:,} rows  {task.fields[rate]} rows/s"),
            TimeRemainingColumn(compact=True),
            TextColumn("left"),
            console=console,
            transient=True,
        )
        self._task: Any = None
        self._rows = 0
        self._clock = _Clock()

    def __enter__(self) -> "RowsProgress":
        self._bar.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._bar.stop()

    def told(self, rows: int, share: float | None) -> None:
        """Rows finished in all, and the share of the source read, None where unknown; the first call is the start."""
        rate = self._clock.rate(rows - self._rows)
        self._rows = rows
        if self._task is None:
            if rows:
                self._bar.console.print(f"Continuing after row {rows:,}")
            self._task = self._bar.add_task("", total=None, rows=rows, rate="-")
        total = None if share is None else 1.0
        self._bar.update(self._task, total=total, completed=share, rows=rows, rate=f"{rate:,.0f}" if rate else "-")


class _Clock:
    """Rows a second since it was made, the first call not counted."""

    def __init__(self) -> None:
        self._began: float | None = None
        self._rows = 0

    def rate(self, rows: int) -> float:
        now = time.monotonic()
        if self._began is None:
            self._began = now
            return 0.0
        self._rows += rows
        return self._rows / (now - self._began)


def plan_table(recipe: "Recipe", plan: "Plan") -> "Table":
    """A dry run's answer."""
    from rich.table import Table

    table = Table(title=f"{recipe.name}: what the run would do", title_justify="left", show_header=False)
    table.add_column(no_wrap=True)
    table.add_column()
    if plan.counts is not None:
        c = plan.counts
        table.add_row("trainable parameters", f"{c.trainable:,} of {c.total:,} ({c.trainable / c.total:.2%})")
        table.add_row("", f"{c.lora:,} LoRA + {c.head:,} head")
    rows = f"{plan.train_rows:,} train" + (f", {plan.validation_rows:,} validation" if plan.validation_rows else "")
    table.add_row("rows", rows)
    table.add_row("steps", f"{plan.steps:,} ({recipe.train.epochs} epochs, batch {recipe.train.batch_size})")
    table.add_row("tokens", "unknown" if plan.tokens is None else f"{plan.tokens:,} (padding not counted)")
    table.add_row("precision", f"{plan.precision.name} ({plan.precision.reason})")
    table.add_row("estimated time", "unknown" if plan.seconds is None else duration(plan.seconds))
    return table


def bench_table(result: dict[str, Any]) -> "Table":
    """A benchmark: each side's rate with its spread, and ours over the stock stack's."""
    tokens, batch = result["rows"]["tokens_per_row"], result["settings"]["batch_size"]
    title = (
        f"{result['settings']['task']} of {result['settings']['backbone']}, batch {batch}, {tokens:.0f} tokens a row"
    )
    stock = [name for name in result["variants"] if name.startswith("trainer")]
    table = new_table(title, "", "rows/s", "peak", "MiB", *(f"x {name.removeprefix('trainer-')}" for name in stock))
    table.caption = (
        "rows/s: median (lowest to highest). peak: share of the machine's own matrix-product rate. MiB: above the imports. x: "
        "times the stock Trainer in that precision."
    )
    for name, one in result["variants"].items():
        rate = one["rows_per_second"]
        ratios = [result["ratios"].get(f"{name} / {other}") for other in stock]
        table.add_row(
            name,
            f"{rate['median']:.1f} ({rate['lowest']:.1f} to {rate['highest']:.1f})",
            "" if one["share_of_matmul_peak"] is None else f"{one['share_of_matmul_peak']:.0%}",
            f"{(one['memory_peak'] - one['memory_before']) / 2**20:,.0f}",
            *("" if ratio is None else f"{ratio:.2f}" for ratio in ratios),
        )
    return table


def duration(seconds: float) -> str:
    """Seconds in the unit a person would say."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
