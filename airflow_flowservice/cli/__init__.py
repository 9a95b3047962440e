"""`airflow flowservice ...`: what this package adds to Airflow's command line.

Every `airflow` command imports this module, so it imports nothing that it can do without.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow.cli.cli_config import CLICommand

_CHECK_DESCRIPTION = """
Looks at a connection, and at a dataflow if one is named, and says of each thing that on-demand ingestion needs whether
it is as it should be, and what to do if not. The connection is read as Airflow reads it outside of tasks: from the
environment, a secrets backend or the metadata database. Nothing is created.
"""
_CHECK_EPILOG = """
Each line is `ok`, `wrong`, `note` (worth a look) or `not checked`. Exit status: 0 if nothing is wrong; 1 if something
is, also if there is no such connection; 2 for arguments that cannot be read.
"""
_COVERAGE_DESCRIPTION = """
Shows what became of each window between two dates: ingested, running, failed, missing or in twice. With --dag-id it
joins the windows of the DAG's runs, and those that its schedule would have made, with what the tasks pushed; with
--conn-id also with the flow runs at Flow Service, which alone shows runs that were made elsewhere or that a clear has
replaced. With --flow-id and --conn-id alone, all of the time between the dates is expected to be in. Gaps are followed
by the `airflow backfill create` command that fills them. Nothing is created.
"""
_COVERAGE_EPILOG = """
Exit status: 0 if no window is missing, failed or in twice, as far as one can know; 1 if one is; 2 if there is nothing
to show.
"""
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
        func=made_of.lazy_load_command("airflow_flowservice.cli.windows_command.windows"),
        args=(made_of.ARG_DAG_ID, *_own(made_of), made_of.ARG_DAGFILE_PATH, made_of.ARG_BUNDLE_NAME),
    )
    check = made_of.ActionCommand(
        name="check",
        help="Tell what is wrong with a connection or a dataflow, and what to do",
        description=_CHECK_DESCRIPTION,
        epilog=_CHECK_EPILOG,
        func=made_of.lazy_load_command("airflow_flowservice.cli.check_command.check"),
        args=_of_check(made_of),
    )
    coverage = made_of.ActionCommand(
        name="coverage",
        help="Show which windows are in, missing, failed or in twice, and how to fill the gaps",
        description=_COVERAGE_DESCRIPTION,
        epilog=_COVERAGE_EPILOG,
        func=made_of.lazy_load_command("airflow_flowservice.cli.coverage_command.coverage"),
        args=_of_coverage(made_of),
    )
    group = made_of.GroupCommand(
        name="flowservice",
        help="Look at on-demand ingestion in Adobe Experience Platform",
        subcommands=(check, coverage, windows),
    )
    return [group]


def _own(made_of: Any) -> tuple[Any, ...]:
    arg = made_of.Arg
    date: Any = {"type": made_of.parsedate, "required": True, "metavar": "DATE"}
    return (
        arg(("--from", "--from-date"), help=_DATE.format("from"), dest="from_date", **date),
        arg(("--to", "--to-date"), help=_DATE.format("to"), dest="to_date", **date),
        arg(("-t", "--task-id"), help="the OnDemandFlowRunOperator to look at, if the DAG has several that differ"),
        _json(made_of),
    )


def _of_check(made_of: Any) -> tuple[Any, ...]:
    arg = made_of.Arg
    default = "flowservice_default"
    return (
        arg(("--conn-id",), help=f"the connection; default: {default}", default=default),
        arg(("--flow-id",), help="a dataflow to look at as well"),
        _json(made_of),
    )


def _of_coverage(made_of: Any) -> tuple[Any, ...]:
    arg = made_of.Arg
    date: Any = {"type": made_of.parsedate, "required": True, "metavar": "DATE"}
    return (
        arg(("-d", "--dag-id"), help="the DAG whose windows are looked at"),
        arg(("-t", "--task-id"), help="only this task of it"),
        arg(
            ("--from",),
            help="begin; in Airflow's default time zone if it names none",
            dest="from_date",
            **date,
        ),
        arg(("--to",), help="end; not included", dest="to_date", **date),
        arg(("--flow-id",), help="the dataflow; needed if the DAG feeds several, or without a DAG"),
        arg(("--conn-id",), help="ask Flow Service too, with this connection"),
        _json(made_of),
    )


def _json(made_of: Any) -> Any:
    return made_of.Arg(("--json",), help="print a list of JSON objects instead", action="store_true", dest="as_json")
