"""Commands. Each parses, calls one function of the package, and shows what came back."""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import cyclopts
from cyclopts import App, Parameter

from newslora import __version__
from newslora.errors import NewsloraError

if TYPE_CHECKING:
    from rich.console import Console

EXIT_USAGE = 2
EXIT_INTERRUPTED = 130

app = App(
    name="newslora",
    version=__version__,
    help="Fine-tune a pretrained text encoder with LoRA into a news classifier, and know how good it is.",
    help_format="plaintext",
)


@app.command
def train(
    recipe: str = "seed",
    /,
    *,
    data: str | None = None,
    validation: str | None = None,
    test: str | None = None,
    backbone: str | None = None,
    settings: Annotated[list[str] | None, Parameter(name="--set", negative="")] = None,
    output: Annotated[Path | None, Parameter(name=["--output", "-o"])] = None,
    resume: Path | None = None,
    dry_run: Annotated[bool, Parameter(negative="")] = False,
    device: str | None = None,
) -> None:
    """Train a recipe into a run folder: adapter, metrics, evaluation, report.

    Parameters
    ----------
    recipe
        A bundled recipe (quickstart, seed, fast) or a TOML file.
    data
        Training rows (data.source): file, folder, hub name, or 'corpus'.
    validation
        Rows that choose the epoch (data.validation).
    test
        Rows touched once, at the end (data.test).
    backbone
        Pretrained encoder (model.backbone): 'minilm', a folder, or a hub name.
    settings
        Any setting as key=value; may be repeated. `newslora settings` lists them.
    output
        The run folder to make; runs/DATE-NAME by default.
    resume
        Continue this run, stopped by Ctrl-C, a signal or a crash, to the same result.
    dry_run
        Print the resolved recipe, parameters, steps, tokens and time; train nothing, download no weights.
    device
        'cpu', 'cuda', 'cuda:1', ...; the first GPU by default, else the CPU.
    """
    from newslora.config import load_recipe, parse_assignment, to_toml
    from newslora.errors import SettingsError

    changes: dict[str, Any] = dict(parse_assignment(text) for text in settings or [])
    flags = {"data.source": data, "data.validation": validation, "data.test": test, "model.backbone": backbone}
    changes |= {key: value for key, value in flags.items() if value is not None}
    if resume is not None:
        if changes or output is not None or recipe != "seed" or dry_run:
            raise SettingsError("--resume continues a run as it began; it takes no recipe and no other settings.")
        _train(resume, None, None, device)
        return
    resolved = load_recipe(recipe, changes)
    if dry_run:
        from newslora.cli.screen import plan_table
        from newslora.plan import make_plan

        console, plan = _console(data=True), make_plan(resolved, device)
        console.print(to_toml(resolved), markup=False, highlight=False)
        console.print(plan_table(resolved, plan))
        for note in plan.notes:
            console.print(note, markup=False, highlight=False)
        return
    _train(None, resolved, output, device)


def _train(resume_from: Path | None, recipe: Any, output: Path | None, device: str | None) -> None:
    from newslora import pipeline
    from newslora.cli.screen import ProgressWatcher, duration
    from newslora.evaluation.evaluate import evaluate_run

    watcher = ProgressWatcher(_console())
    if resume_from is not None:
        run = pipeline.resume(resume_from, watcher=watcher, device=device)
    else:
        run = pipeline.train(recipe, output=output, watcher=watcher, device=device)
    _show(evaluate_run(run.path, None))
    console, manifest = _console(data=True), run.manifest()
    spent = duration(manifest["training"]["seconds"])
    console.print(f"Trained in {spent}; kept epoch {manifest['training']['best_epoch']}.", highlight=False)
    console.print(f"Run: {run.path}\nReport: {run.report_file}", markup=False, highlight=False, soft_wrap=True)


@app.command
def evaluate(
    run: Path,
    /,
    *,
    data: str | None = None,
    settings: Annotated[list[str] | None, Parameter(name="--set", negative="")] = None,
) -> None:
    """Show how good a run is: accuracy, F1 per class and confusion, with 95 % intervals.

    Parameters
    ----------
    run
        A finished run folder.
    data
        Other labelled rows to score; by default the run's own test rows, as scored when it finished.
    settings
        Settings of the section data for reading them, as key=value (data.label_column=..., data.label_names=[...]).
    """
    from newslora.evaluation.evaluate import evaluate_run

    with _counting("rows scored") as progress:
        result = evaluate_run(run, data, _data_changes(settings), progress)
    _show(result)


@app.command
def predict(
    run: Path,
    source: Annotated[str, Parameter(allow_leading_hyphen=True)],
    /,
    *,
    output: Annotated[Path | None, Parameter(name=["--output", "-o"])] = None,
    settings: Annotated[list[str] | None, Parameter(name="--set", negative="")] = None,
    precision: str = "fp32",
    device: str | None = None,
) -> None:
    """Classify rows: every input row comes out once, in order, with label, probability, or the error that kept it out.

    Parameters
    ----------
    run
        A finished run folder.
    source
        A CSV, JSON lines or Parquet file, a folder, a hub name, or '-' for one text a line on standard input.
    output
        File to write (.csv, .jsonl or .parquet); without it, label, probability and text go to standard output.
    settings
        data.text_columns, data.label_column or data.header as key=value, where columns cannot be found by name.
    precision
        'fp32', in which a text's answer does not depend on its neighbours beyond rounding; 'bf16'; or 'auto', the device's
        fastest, which moves probabilities in the third digit.
    device
        'cpu', 'cuda', ...
    """
    from newslora.config import load_recipe
    from newslora.errors import SettingsError
    from newslora.predict.bulk import predict_lines, predict_source, print_source
    from newslora.predict.classifier import Classifier

    data = load_recipe("seed", _data_changes(settings)).data
    classifier = Classifier.load(run, device, precision)
    console = _console()
    if source == "-":
        if output is not None:
            raise SettingsError("Standard input goes to standard output: leave --output out, or name a file as input.")
        sys.stdin.reconfigure(errors="surrogateescape")  # type: ignore[union-attr]  # a broken line is reported, not fatal
        counted = predict_lines(classifier, sys.stdin, sys.stdout)
    elif output is None:
        counted = print_source(classifier, source, sys.stdout, data)
    else:
        with _counting("rows classified") as progress:
            counted = predict_source(classifier, source, output, data, progress)
        console.print(f"{counted.rows:,} rows in {output}", highlight=False, markup=False)
    if counted.failed:
        console.print(
            f"{counted.failed:,} of {counted.rows:,} rows could not be classified; the reason stands in each."
        )


@app.command
def report(run: Path, /) -> None:
    """Write a run's figures and its self-contained HTML report again.

    Parameters
    ----------
    run
        A finished run folder.
    """
    from newslora.report.report import report_run

    print(report_run(run))


@app.command
def bench(
    backbone: str = "minilm",
    /,
    *,
    task: str = "training",
    data: str = "corpus",
    tokenizer: str | None = None,
    batch_size: int = 16,
    warmup: int = 40,
    steps: int = 40,
    rounds: int = 3,
    output: Annotated[Path | None, Parameter(name=["--output", "-o"])] = None,
) -> None:
    """Measure newslora beside the stock Trainer + PEFT: same rows, same batches, by turns, each in its own process.

    Parameters
    ----------
    backbone
        'minilm', 'roberta-base' (its architecture; speed does not depend on the weights) or a local folder.
    task
        'training' or 'prediction'.
    data
        Rows whose lengths count; as data.source.
    tokenizer
        Folder of the tokenizer that splits them; by default the backbone's own, or without a hub the bundled one.
    batch_size
        Rows a batch, on both sides.
    warmup
        Batches before the clock starts; the first of each length compiles products for it, on both sides.
    steps
        Batches on the clock.
    rounds
        Times each side is measured; the median counts, the spread is kept.
    output
        JSON file; by default benchmarks/results/DATE-bench-TASK-BACKBONE.json.
    """
    from newslora.bench.run import BenchSettings, run_bench, write_result
    from newslora.cli.screen import bench_table

    console = _console()
    result = run_bench(
        BenchSettings(backbone, task, data, batch_size, warmup, steps, rounds, tokenizer),
        lambda text: console.print(text, highlight=False, markup=False),
    )
    path = write_result(result, output)
    out = _console(data=True)
    out.print(bench_table(result))
    out.print(f"Result: {path}", markup=False, highlight=False, soft_wrap=True)


@app.command(name="settings")
def list_settings() -> None:
    """List every setting with its default and meaning; a recipe or --set changes them."""
    from newslora.config import Recipe, to_toml

    print(to_toml(Recipe()).strip())  # plain text, so that it can be saved as a recipe


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns its exit code (see the README)."""
    # no telemetry and no advice from libraries in the middle of our output
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
    except NewsloraError as error:
        _complain(str(error))
        return error.exit_code
    except cyclopts.CycloptsError as error:
        _complain(f"{error} `newslora --help` shows how.")
        return EXIT_USAGE
    except KeyboardInterrupt:
        _complain("Stopped.")
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # the reader of our output left, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _complain(text: str) -> None:
    print(f"newslora: {text}", file=sys.stderr)


def _data_changes(settings: list[str] | None) -> dict[str, Any]:
    """--set of a command that reads rows but does not train."""
    from newslora.config import parse_assignment
    from newslora.errors import SettingsError

    changes = dict(parse_assignment(text) for text in settings or [])
    if odd := [key for key in changes if not key.startswith("data.")]:
        raise SettingsError(f"A trained run cannot change '{odd[0]}'; only settings of the section data go here.")
    return changes


def _console(data: bool = False) -> "Console":
    """Results go to standard output; progress and remarks to standard error, out of the data's way."""
    from rich.console import Console

    return Console(stderr=not data)


@contextlib.contextmanager
def _counting(what: str) -> Iterator[Callable[[int], None]]:
    """A function that counts rows on screen while inside."""
    from rich.progress import Progress, TextColumn

    with Progress(TextColumn("{task.completed:,.0f} " + what), console=_console(), transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda rows: bar.advance(task, rows)


def _show(result: dict[str, Any]) -> None:
    from newslora.cli.screen import evaluation_tables

    console = _console(data=True)
    for table in evaluation_tables(result):
        console.print(table)
    if result["note"]:
        console.print(result["note"], highlight=False)
