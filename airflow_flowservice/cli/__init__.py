"""`airflow flowservice ...`: what this package adds to Airflow's command line.

Every `airflow` command imports this module, so it imports nothing that it can do without.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow.cli.cli_config import CLICommand

_DESCRIPTION = """
Shows which window each DAG run between two dates ingests, and whether these windows tile. It reads the DAG's file
alone: it needs no running Airflow and no database, and it creates nothing. The runs are those that the DAG's schedule,
or `airflow backfill create` with the same dates, makes; runs that exist already are not looked at.
"""
_EPILOG = """
Exit status: 0 if the windows tile; 1 if they leave a gap or overlap, or a run has no window; 2 if there is nothing to
show: an unknown DAG, a file that cannot be imported, a schedule or dates that make no runs.
"""
_DATE = "as --{0}-date of `airflow backfill create`: inclusive, in Airflow's default time zone if it names none"


def get_flowservice_cli_commands() -> list[CLICommand]:
    """The commands, for Airflow's own command line (3.2 and later) and for `python -m airflow_flowservice`."""
    from airflow.cli import cli_config

    made_of: Any = cli_config
    windows = made_of.ActionCommand(
        name="windows",
        help="Show which window each DAG run ingests, before a backfill",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        func=made_of.lazy_load_command("airflow_flowservice.cli.windows.windows"),
        args=(made_of.ARG_DAG_ID, *_own(made_of), made_of.ARG_DAGFILE_PATH, made_of.ARG_BUNDLE_NAME),
    )
    group = made_of.GroupCommand(
        name="flowservice", help="Look at on-demand ingestion in Adobe Experience Platform", subcommands=(windows,)
    )
    return [group]


def _own(made_of: Any) -> tuple[Any, ...]:
    arg = made_of.Arg
    date: Any = {"type": made_of.parsedate, "required": True, "metavar": "DATE"}
    return (
        arg(("--from", "--from-date"), help=_DATE.format("from"), dest="from_date", **date),
        arg(("--to", "--to-date"), help=_DATE.format("to"), dest="to_date", **date),
        arg(("-t", "--task-id"), help="the OnDemandFlowRunOperator to look at, if the DAG has several that differ"),
        arg(("--json",), help="print a list of JSON objects instead of a table", action="store_true", dest="as_json"),
    )
