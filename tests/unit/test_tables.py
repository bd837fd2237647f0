"""Tables on screen show what data says, whatever it holds."""

import io

from rich.console import Console

from newslora.cli.common import new_table, plain
from newslora.cli.evaluation_tables import NAMES
from newslora.metrics.basic import SHARES
from newslora.report.findings import METRICS


def test_brackets_of_titles_headings_and_cells_are_no_markup() -> None:
    table = new_table("[bold]news[/bold]", "[red]label", "rows", words=("[red]label",))
    table.add_row(plain("[link]a"), "12")
    console = Console(width=60, record=True, file=io.StringIO())
    console.print(table)
    shown = console.export_text()
    assert all(text in shown for text in ("[bold]news[/bold]", "[red]label", "[link]a"))
    assert [column.justify for column in table.columns] == ["left", "right"]


def test_screen_and_report_name_the_same_metrics() -> None:
    assert set(NAMES) == set(METRICS)
    assert set(SHARES) < set(NAMES)
