"""`newslora predict`."""

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from newslora.cli.common import DeviceFlag, OutputFlag, SetFlags, data_changes, remarks


def predict(
    run: Path,
    source: Annotated[str, Parameter(allow_leading_hyphen=True)],
    /,
    *,
    output: OutputFlag = None,
    settings: SetFlags = None,
    top_k: int | None = None,
    probabilities: Annotated[bool, Parameter(negative="")] = False,
    abstain: float | None = None,
    explain: int | None = None,
    fresh: Annotated[bool, Parameter(negative="")] = False,
    precision: str = "fp32",
    device: DeviceFlag = None,
) -> None:
    """Classify rows: every input row comes out once, in order, with label, probability, or the error that kept it out.

    Finished rows are kept in OUTPUT.partial until the output is whole: stopped, killed or out of disk, the same command goes
    on behind them and ends with the same bytes. What is read from standard input cannot be gone on with. With --top-k,
    --probabilities, --abstain or --explain, and where a row may carry several labels, what goes to standard output is JSON
    lines. A CSV file then holds the labels of a row with data.label_separator between.

    Parameters
    ----------
    run
        A finished run folder, or what `newslora export` made of one.
    source
        A CSV, JSON lines or Parquet file, a folder, a hub name, or '-' for one text a line on standard input. A table that
        has columns but no rows gives an output without rows; a file with nothing in it is an error. A column of a name that
        is added, such as predicted, is kept as input_predicted.
    output
        File to write (.csv or .jsonl, also with .gz or .zst behind, or .parquet, which keeps the types of a Parquet input's
        columns and, of JSON lines, those that are whole numbers, numbers or true and false in all rows, and holds all others
        as text); without it, label, probability and text go to standard output.
    settings
        data.text_columns, data.label_column or data.header as key=value. Text is read from the columns that training read it
        from where all are there, else from those found by name, and that is told. A part of columns that only training knew
        is refused.
    top_k
        Also tell this many labels, likeliest first, each with its probability.
    probabilities
        Also tell every label's probability.
    abstain
        Decide a row only where its answer set is a single label; the set holds the right label for this share of rows
        like the validation rows, as 0.99. The others are marked abstained, with their sets. Needs the extra 'abstain'.
    explain
        Also tell the words that weigh most in a row's answer, as many as this, each with its score: nats of log-odds, above
        zero for the label, below against it. Takes as long as dozens of answers a row; not for ONNX exports. Needs the
        extra 'explain'.
    fresh
        Begin again, whatever an earlier sitting left in OUTPUT.partial.
    precision
        'fp32', in which a text's answer does not depend on its neighbours beyond rounding; 'bf16'; or 'auto', the device's
        fastest, which moves probabilities in the third digit.
    """
    from newslora.cli.screen import RowsProgress
    from newslora.config import load_recipe
    from newslora.predict.bulk import predict_lines, predict_stream, print_source
    from newslora.predict.classifier import Classifier
    from newslora.prediction import answers_of, predict_file

    changes, console = data_changes(settings), remarks()
    data = load_recipe("seed", changes).data
    classifier = Classifier.load(run, device, precision)
    if output is not None and source == "-":
        answers = answers_of(classifier, top_k, probabilities, abstain, explain)
        with RowsProgress(console) as progress:
            counted = predict_stream(classifier, sys.stdin.buffer, output, answers, fresh, progress.told, console.print)
        console.print(f"{counted.rows:,} rows in {output}")
    elif output is not None:
        with RowsProgress(console) as progress:
            counted = predict_file(
                classifier, source, output, top_k=top_k, probabilities=probabilities, abstain=abstain, explain=explain,
                fresh=fresh, changes=changes, progress=progress.told, note=console.print,
            )  # fmt: skip
        console.print(f"{counted.rows:,} rows in {output}")
    else:
        answers = answers_of(classifier, top_k, probabilities, abstain, explain)
        if source == "-":
            counted = predict_lines(classifier, sys.stdin.buffer, sys.stdout, answers, console.print)
        else:
            counted = print_source(classifier, source, sys.stdout, data, answers, console.print)
    if abstain is not None:
        console.print(f"{counted.abstained:,} of {counted.rows:,} rows were left undecided at level {abstain:g}.")
    if counted.failed:
        console.print(
            f"{counted.failed:,} of {counted.rows:,} rows could not be classified; the reason stands in each."
        )
