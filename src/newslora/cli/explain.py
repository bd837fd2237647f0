"""`newslora explain`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from newslora.cli.common import (
    DeviceFlag,
    OutputFlag,
    SetFlags,
    counting,
    data_changes,
    remarks,
    results,
    standard_input,
)

if TYPE_CHECKING:
    from newslora.explanation.attributions import Explanation


def explain(
    run: Path,
    /,
    *texts: Annotated[str, Parameter(allow_leading_hyphen=True)],
    output: OutputFlag = None,
    label: str | None = None,
    check: str | None = None,
    rows: int = 100,
    settings: SetFlags = None,
    device: DeviceFlag = None,
) -> None:
    """Show which words of a text speak for its label and which against it, or test whether such explanations can be trusted.

    Parameters
    ----------
    run
        A finished run folder.
    texts
        Texts to explain; '-' for one text a line on standard input.
    output
        File to write (.jsonl or .html); by default the result is shown on screen.
    label
        The label to explain; by default the predicted one.
    check
        Rows (as data.source) on which to test explanations: deleting the words they name must change the answer more than
        deleting random words.
    rows
        How many rows of --check to use, drawn at random.
    settings
        data.text_columns, data.label_column or data.header as key=value, for reading --check.
    """
    from newslora.errors import SettingsError

    if (check is None) == (not texts):
        raise SettingsError("Give texts to explain ('-' reads lines), or rows to test explanations on with --check.")
    if check is not None:
        if output is not None or label is not None:
            raise SettingsError("--check takes no --output and no --label; its result is evaluation/faithfulness.json.")
        _check(run, check, rows, settings, device)
        return
    from newslora.explanation.attributions import explain as explain_texts
    from newslora.predict.classifier import Classifier
    from newslora.report.explained import check_suffix, write_explanations

    if output is not None:
        check_suffix(output)
    many = _lines() if texts == ("-",) else _given(texts)
    classifier = Classifier.load(run, device, engine="padded")
    with counting("texts explained") as progress:
        found = explain_texts(classifier, many, label, progress)
    if output is None:
        _show(found)
    else:
        write_explanations(found, output)
        remarks().print(f"{len(found):,} explained in {output}")


def _check(run: Path, source: str, rows: int, settings: list[str] | None, device: str | None) -> None:
    from newslora.cli.explained import faithfulness_table, faithfulness_verdict
    from newslora.config import load_recipe
    from newslora.evaluation.faithfulness import check_run

    data = load_recipe("seed", data_changes(settings)).data
    with counting("rows explained") as progress:
        result = check_run(run, source, rows, data, device, progress)
    console = results()
    console.print(faithfulness_table(result))
    console.print(faithfulness_verdict(result))


def _given(texts: Sequence[str]) -> list[str]:
    """Texts of the command line, each with something in it, as `predict` wants them."""
    from newslora.data.articles import is_empty
    from newslora.errors import DataError

    for number, text in enumerate(texts, 1):
        if is_empty(text):
            raise DataError(f"Text {number} of {len(texts)} cannot be explained: empty text.")
    return list(texts)


def _lines() -> list[str]:
    """Lines of standard input that say something; one that is not UTF-8 is refused by number."""
    from newslora.data.articles import is_empty
    from newslora.data.lines import FROM_WINDOWS, json_lines_remark
    from newslora.errors import DataError

    # as `predict` reads them, whatever the terminal's own encoding: a mark at the beginning is no text, nor is \r a line's end
    stream = standard_input()
    stream.reconfigure(encoding="utf-8-sig", errors="surrogateescape", newline="\n")  # type: ignore[attr-defined]
    found = [line.removesuffix("\n").removesuffix("\r") for line in stream]
    if found and (remark := json_lines_remark(found[0])):
        remarks().print(remark)
    for number, line in enumerate(found, 1):
        if any("\udc80" <= character <= "\udcff" for character in line):
            raise DataError(
                f"Line {number} of standard input is not UTF-8. Where all of it is in Windows-1252 or Latin-1, put "
                f"`{FROM_WINDOWS} |` before the command."
            )
    return [line for line in found if not is_empty(line)]


def _show(found: "list[Explanation]") -> None:
    from newslora.cli.explained import footnote, heading, marked_text, top_words

    console = results()
    for one in found:
        console.print(heading(one), style="bold")
        console.print(marked_text(one))
        console.print(top_words(one))
        for sentence in (footnote(one), *one.remarks):
            console.print(sentence)
        console.print()
