"""Tables on screen show what data says, whatever it holds."""

from newslora.cli.common import new_table, results
from newslora.cli.evaluation_tables import NAMES
from newslora.metrics.basic import SHARES
from newslora.report.findings import METRICS


def test_what_titles_headings_cells_and_sentences_hold_is_shown_as_it_stands() -> None:
    table = new_table("[bold]news[/bold]", "[red]label", "rows", words=("[red]label",))
    table.add_row("[link]a :car:", "12")
    console = results()
    with console.capture() as captured:
        console.print(table)
        console.print("[b]3 rows :car:")
    shown = captured.get()
    assert all(text in shown for text in ("[bold]news[/bold]", "[red]label", "[link]a :car:", "[b]3 rows :car:"))
    assert [column.justify for column in table.columns] == ["left", "right"]


def test_screen_and_report_name_the_same_metrics() -> None:
    assert set(NAMES) == set(METRICS)
    assert set(SHARES) < set(NAMES)
