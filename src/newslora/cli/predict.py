"""`newslora predict`."""

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from newslora.cli.common import DeviceFlag, OutputFlag, SetFlags, data_changes, remarks, standard_input, utf8_output


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
    """Classify rows: every input row comes out exactly once, in order, with its label and probability or with an error.

    Finished rows are kept in OUTPUT.partial until the output is complete. If the command is stopped or killed, or the disk is
    full, run the same command again: it continues after the finished rows and produces the same bytes. Standard input cannot
    be resumed.

    Standard output gets label, probability and text, separated by tabs; with --top-k, --probabilities, --abstain or
    --explain, or several labels per row, it gets JSON lines. In a CSV file the labels of a row are separated by
    data.label_separator.

    Parameters
    ----------
    run
        A finished run folder or an export.
    source
        A CSV, JSON lines or Parquet file, a folder, a hub name, or '-' for one text a line on standard input. A file with
        columns but no rows gives an output without rows; an empty file is an error. An input column that has the name of an
        output column, such as predicted, is kept as input_predicted.
    output
        File to write: .csv or .jsonl, also compressed (.gz, .zst), or .parquet. Parquet keeps the column types of a Parquet
        input; of JSON lines it keeps columns that are integers, numbers or booleans in all rows, and writes all others as
        text. By default the result goes to standard output.
    settings
        data.text_columns, data.label_column or data.header as key=value. By default text is read from the columns used in
        training; if they are missing, from columns found by name, and a message says so. It is an error if only some of the
        training columns are there and no usual name would find them.
    top_k
        Also return this many labels, most probable first, each with its probability.
    probabilities
        Also return the probability of every label.
    abstain
        Label a row only if its answer set is a single label. Sets hold the right label for this share (such as 0.99) of rows
        that are like the validation rows. The other rows are marked abstained, with their sets. Needs the extra 'abstain'.
    explain
        Also return this many words that weigh most in a row's answer, each with its score in nats of log-odds: positive for
        the label, negative against it. An explained row takes as long as dozens of others. Not for ONNX exports. Needs the
        extra 'explain'.
    fresh
        Start from the beginning and discard OUTPUT.partial.
    precision
        'fp32', where a text's answer depends on the rest of its batch by rounding only; 'bf16'; or 'auto', the fastest on
        this device. bf16 changes probabilities in the third digit.
    """
    from newslora.cli.screen import RowsProgress
    from newslora.config import load_recipe
    from newslora.predict.bulk import predict_lines, predict_stream, print_source
    from newslora.predict.classifier import Classifier
    from newslora.prediction import answers_of, predict_file

    stream = standard_input().buffer if source == "-" else None
    changes, console = data_changes(settings), remarks()
    data = load_recipe("seed", changes).data
    classifier = Classifier.load(run, device, precision)
    if output is not None and stream is not None:
        answers = answers_of(classifier, top_k, probabilities, abstain, explain)
        with RowsProgress(console) as progress:
            counted = predict_stream(classifier, stream, output, answers, fresh, progress.told, console.print)
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
        utf8_output()
        if stream is not None:
            counted = predict_lines(classifier, stream, sys.stdout, answers, console.print)
        else:
            counted = print_source(classifier, source, sys.stdout, data, answers, console.print)
    if abstain is not None:
        console.print(f"{counted.abstained:,} of {counted.rows:,} rows were left undecided at level {abstain:g}.")
    if counted.failed:
        console.print(
            f"{counted.failed:,} of {counted.rows:,} rows could not be classified; the output has the reason of each."
        )
