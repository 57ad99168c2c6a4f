"""``toolkit compare``: what two records say about the same cases."""

from __future__ import annotations

import click

from toolkit.cli.history import report_of
from toolkit.cli.options import emit, format_option
from toolkit.profiler.comparing import compare as compare_records
from toolkit.report.comparison import comparison_table


@click.command()
@click.argument("old", metavar="A")
@click.argument("new", metavar="B")
@click.option("--across-environments", is_flag=True, help="Compare even records of different machines or versions.")
@format_option
def compare(old: str, new: str, across_environments: bool, output_format: str) -> None:
    """Compare two records: JSON files of 'toolkit profile -o', or run numbers of
    'toolkit history'.

    Ratios are B's time over A's. Records of different environments are refused,
    and what differs is said. For a decision, 'toolkit check' measures both
    models in one run, which is finer.
    """
    found = compare_records(report_of(old), report_of(new), across=across_environments)
    emit(found, output_format, lambda: comparison_table(found))
