# SPDX-License-Identifier: Apache-2.0
"""Commands `airflow flowservice ...` of Airflow's command line.

Every `airflow` command imports this module, so it imports nothing at its top level.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow.cli.cli_config import CLICommand

_CHECK_DESCRIPTION = """
Checks a connection and, optionally, a dataflow. Prints a result for each requirement of on-demand ingestion, and a
remedy for each problem. The connection is read as Airflow reads it outside of tasks: from the environment, a secrets
backend or the metadata database. Nothing is created.
"""
_CHECK_EPILOG = """
Each line is `ok`, `wrong`, `note` (passed with a remark) or `not checked`. Example: `airflow flowservice check
--conn-id flowservice_default --flow-id F`. Exit status: 0 if nothing is wrong; 1 if something is wrong or the
connection does not exist; 2 if the arguments are invalid.
"""
_COVERAGE_DESCRIPTION = """
Shows the state of each window between two dates: ingested, running, failed, missing, duplicated, restated or unknown.
With --dag-id, it compares the windows of the DAG's runs and of its schedule with the ledger of ingested windows and the
results of the tasks. A window that none of these records can have is unknown, and gets no command. With --conn-id, it
also queries Flow Service. Only Flow Service reports flow runs that were created outside the DAG or were replaced by a
clear. With --flow-id and --conn-id only, the whole time between the dates is expected to be ingested. For missing and
failed windows, it prints the `airflow backfill create` commands that ingest them. With --all, it shows one row for each
dataflow that Airflow or the ledger knows, the worst first. Nothing is created.
"""
_COVERAGE_EPILOG = """
Examples: `airflow flowservice coverage --dag-id ingest_orders --from 2026-01-01 --to 2026-02-01`, `airflow flowservice
coverage --all --since 7d`. Exit status: 0 if no window is known to be missing, failed or duplicated; 1 if one is; 2 if
there is nothing to show, or if the ledger cannot be read.
"""
_FILL_DESCRIPTION = """
Fills the gaps of a DAG between two dates: shows the DAG runs that would be created or run again, asks for the number of
DAG runs as confirmation, and then creates them with Airflow's own functions. Missing windows get a backfill, and failed
ones run again. If a task of the same DAG run must not run again, only the failed task is cleared. Airflow runs one
backfill of a DAG at a time, so the command waits between ranges. A second `fill` at the same time creates nothing
twice. Windows with an unknown outcome are not filled.
"""
_FILL_EPILOG = """
Example: `airflow flowservice fill --dag-id ingest_orders --from 2026-01-01 --to 2026-02-01 --dry-run`. Exit status: 0
if nothing is left to fill; 1 if something is: --dry-run, no confirmation, or Airflow refused it; 2 if nothing can be
filled: an unknown DAG, several dataflows, an unreadable ledger, or invalid arguments.
"""
_FRESHNESS_DESCRIPTION = """
Shows the lag of dataflows: the time since the instant until which all expected windows are ingested. It reads Airflow's
history and the ledger, so it also works while a DAG is paused, fails to parse or was deleted. Nothing is created.
"""
_FRESHNESS_EPILOG = """
Example: `airflow flowservice freshness --all --max-lag 26h`. Exit status: 0 if no dataflow lags more; 1 if one does, or
if no record shows whether its windows are ingested; 2 if there is nothing to show, or if the ledger cannot be read.
"""
_FAILED_RECORDS_DESCRIPTION = """
Shows the rows of a flow run that failed: how many have each of Adobe's error codes, with an example of each, and the
source files that failed. Adobe keeps them for 30 days, and only if error diagnostics are enabled on the dataflow. Rows
may contain personal data: they are printed and written to the file of --file, and nowhere else. Nothing is created.
"""
_FAILED_RECORDS_EPILOG = """
Example: `airflow flowservice failed-records --flow-run-id R --conn-id flowservice_default`. Exit status: 0 if no row
and no file failed; 1 if some failed; 2 if there is nothing to show: an unknown flow run, no error diagnostics, an
incomplete download, or invalid arguments.
"""
_FLOWS_DESCRIPTION = """
Lists the dataflows of a connection's sandbox: id, name, state, schedule, source and last flow run. With --output dag,
it prints a DAG file with one task for each listed dataflow. Nothing is created.
"""
_FLOWS_EPILOG = """
Examples: `airflow flowservice flows --one-time`, `airflow flowservice flows --one-time --output dag > ingest.py`. Exit
status: 0 if there are dataflows; 2 if there is none, Flow Service cannot be used, or the arguments are invalid.
"""
_WINDOWS_DESCRIPTION = """
Shows the windows of a DAG's schedule between two dates, with the DAG run that ingests each, and reports whether these
windows are contiguous. With --from-date and --to-date, it shows the windows that `airflow backfill create` with these
dates ingests. It reads only the DAG's file: it needs no running Airflow and no database, and creates nothing. Existing
DAG runs are not read.
"""
_WINDOWS_EPILOG = """
Example: `airflow flowservice windows --dag-id ingest_orders --from 2026-01-01 --to 2026-02-01`. Exit status: 0 if the
windows are contiguous; 1 if there is a gap, an overlap or a DAG run without a window; 2 if there is nothing to show: an
unknown DAG, a file that cannot be imported, a schedule or dates without DAG runs.
"""
_LEDGER_DESCRIPTION = """
Manages the ledger of ingested windows, in Airflow's Variables or in a SQL database. The connection of the database is
--ledger-conn-id, or `ledger_conn_id` in the extra of --conn-id, or the option `[flowservice] ledger_conn_id`, in this
order. If none of them is set, the ledger is in Variables, which are read and written in Airflow's metadata database.
"""
_MIGRATE_DESCRIPTION = """
Creates or upgrades the tables of the ledger in a SQL database, and changes nothing if they are up to date. Two
migrations can run at the same time. The database's user needs the permission to create tables. A ledger in Airflow's
Variables needs no migration.
"""
_MIGRATE_EPILOG = """
Example: `airflow flowservice ledger migrate --ledger-conn-id ledger`. Exit status: 0 if the tables are up to date, or
not needed; 2 if the database cannot be used or the arguments are invalid.
"""
_EXPORT_DESCRIPTION = """
Prints the entries of the ledger, by default as JSON lines: one JSON object in each line, which `ledger import` reads.
"""
_EXPORT_EPILOG = """
Example: `airflow flowservice ledger export > ledger.jsonl`. Exit status: 0 if there are entries; 2 if there is none,
the database cannot be used, or the arguments are invalid.
"""
_IMPORT_DESCRIPTION = """
Stores the entries of an export that the ledger does not have. With --from-history, it stores the windows that tasks in
Airflow's history have ingested, by their XComs. Without --confirm, it only counts them. It never changes an existing
entry.
"""
_IMPORT_EPILOG = """
Examples: `airflow flowservice ledger import ledger.jsonl --confirm`, `airflow flowservice ledger import --from-history
--dag-id ingest_orders`. Exit status: 0 if the ledger has no different entry; 1 if it has a different entry for a
window; 2 if there is no entry to import, the arguments are invalid, or the database cannot be used.
"""
_LEDGER_CHECK_DESCRIPTION = """
Compares the ledger with the flow runs of Flow Service, for the dataflows of the connection's organization and sandbox.
It shows ingested entries whose flow run failed or does not exist, and successful flow runs that are not in the ledger.
Nothing is changed.
"""
_LEDGER_CHECK_EPILOG = """
Example: `airflow flowservice ledger check --conn-id flowservice_default --flow-id F`. Exit status: 0 if nothing
differs; 1 if something differs; 2 if there is nothing to compare, or Flow Service or the ledger cannot be used.
"""
_FORGET_DESCRIPTION = """
Removes the entries of a dataflow whose windows are between two dates. Without --confirm, it only shows them. A DAG run
for a forgotten window ingests the window again. Do not forget a window that a task is ingesting.
"""
_FORGET_EPILOG = """
Example: `airflow flowservice ledger forget --flow-id F --from 2026-01-01 --to 2026-01-08 --confirm`. Exit status: 0 if
the entries were removed or shown; 1 if an entry changed meanwhile and was kept; 2 if there is none, the database cannot
be used, or the arguments are invalid.
"""
_BACKFILL_DATE_HELP = "instead of --{0}: as --{0}-date of `airflow backfill create`, inclusive"


def get_flowservice_cli_commands() -> list[CLICommand]:
    """Return the commands, for Airflow's command line (3.2 and later) and for `python -m airflow_flowservice`."""
    from airflow.cli import cli_config

    config: Any = cli_config
    group = config.GroupCommand(
        name="flowservice",
        help="Preview and check on-demand ingestion in Adobe Experience Platform",
        subcommands=(
            _check_command(config),
            _coverage_command(config),
            _failed_records_command(config),
            _fill_command(config),
            _flows_command(config),
            _freshness_command(config),
            _ledger_commands(config),
            _windows_command(config),
        ),
    )
    return [group]


def _check_command(config: Any) -> Any:
    return config.ActionCommand(
        name="check",
        help="Check a connection and a dataflow, and print remedies",
        description=_CHECK_DESCRIPTION,
        epilog=_CHECK_EPILOG,
        func=config.lazy_load_command("airflow_flowservice.cli.check_command.check"),
        args=(
            _conn_arg(config),
            config.Arg(("--flow-id",), help="also check this dataflow", type=_flow_id_text),
            config.Arg(("-d", "--dag-id"), help="also check the pools of this DAG, in Airflow's metadata database"),
            *_output_args(config),
        ),
    )


def _coverage_command(config: Any) -> Any:
    flow_help = "the dataflow; required without a DAG, or if the DAG has several"
    conn_help = "also query Flow Service; with --all: only dataflows of this connection"
    return config.ActionCommand(
        name="coverage",
        help="Show ingested, missing, failed and duplicated windows, and commands that fill the gaps",
        description=_COVERAGE_DESCRIPTION,
        epilog=_COVERAGE_EPILOG,
        func=config.lazy_load_command("airflow_flowservice.cli.coverage_command.coverage"),
        args=(
            config.Arg(("-d", "--dag-id"), help="the DAG whose windows are shown", type=_id_text),
            config.Arg(("-t", "--task-id"), help="show only the windows of this task", type=_id_text),
            *_range_args(config, required=False),
            config.Arg(("--flow-id",), help=flow_help, type=_flow_id_text),
            config.Arg(("--conn-id",), help=conn_help, type=_id_text),
            config.Arg(("--all",), help="show one row for each dataflow, the worst first", action="store_true"),
            config.Arg(("--tag",), help="with --all: only dataflows of DAGs with this tag", type=_id_text),
            _since_arg(config, default=None),
            _metrics_arg(config),
            *_output_args(config),
        ),
    )


def _fill_command(config: Any) -> Any:
    return config.ActionCommand(
        name="fill",
        help="Create the DAG runs that ingest missing and failed windows",
        description=_FILL_DESCRIPTION,
        epilog=_FILL_EPILOG,
        func=config.lazy_load_command("airflow_flowservice.cli.fill_command.fill"),
        args=(
            config.Arg(("-d", "--dag-id"), help="the DAG whose windows are filled", required=True, type=_id_text),
            config.Arg(("-t", "--task-id"), help="fill only the windows of this task", type=_id_text),
            *_range_args(config, required=True),
            config.Arg(("--flow-id",), help="the dataflow, if the DAG has several", type=_flow_id_text),
            config.Arg(
                ("--conn-id",), help="also query Flow Service, for windows that were ingested elsewhere", type=_id_text
            ),
            config.Arg(("--chunk",), help="fill by longer windows: a number and h, d, w or mo, such as 1mo"),
            config.Arg(("--include-unknown",), help="also fill windows with an unknown outcome", action="store_true"),
            config.Arg(("--restate",), help="ingest again what is ingested, and nothing else", action="store_true"),
            config.Arg(("--max-active-runs",), help="of a backfill; default: 10", type=_count, default=10, metavar="N"),
            config.Arg(("--dry-run",), help="only show what would be done", action="store_true"),
            config.Arg(("-y", "--yes"), help="do not ask for confirmation", action="store_true"),
            config.Arg(
                ("--confirm-restate",), help="confirm --restate with the number of DAG runs", type=int, metavar="N"
            ),
            config.ARG_OUTPUT,
        ),
    )


def _freshness_command(config: Any) -> Any:
    conn_help = "only dataflows of this connection's organization and sandbox"
    return config.ActionCommand(
        name="freshness",
        help="Check how far the ingested windows of dataflows are behind",
        description=_FRESHNESS_DESCRIPTION,
        epilog=_FRESHNESS_EPILOG,
        func=config.lazy_load_command("airflow_flowservice.cli.fleet_command.freshness"),
        args=(
            config.Arg(("--max-lag",), help="the longest lag: a number and m, h, d or w, such as 26h", required=True),
            config.Arg(
                ("--flow-id",), help="check this dataflow; repeat it for several", action="append", type=_flow_id_text
            ),
            config.Arg(("--all",), help="check all dataflows", action="store_true"),
            config.Arg(("--conn-id",), help=conn_help, type=_id_text),
            config.Arg(("--tag",), help="only dataflows of DAGs with this tag", type=_id_text),
            _since_arg(config),
            _metrics_arg(config),
            *_output_args(config),
        ),
    )


def _since_arg(config: Any, *, default: str | None = "366d") -> Any:
    """Return `--since`. Without a default, the command has 366 days only for the overview."""
    condition = "" if default else ", with --all"
    text = f"start of the range, before now: a number and m, h, d or w; default{condition}: 366d"
    return config.Arg(("--since",), help=text, default=default)


def _flow_id_text(text: str) -> str:
    """Return the id of a dataflow; a UUID in lower case, as Adobe writes it.

    :raises argparse.ArgumentTypeError: as in `_id_text`.
    """
    from airflow_flowservice.plain_text import canonical_id

    return canonical_id(_id_text(text))


def _id_text(text: str) -> str:
    """Return an argument that selects by an id or a name.

    :raises argparse.ArgumentTypeError: it is empty, for instance from a variable of a script that is not set.
    """
    if text.strip():
        return text
    from argparse import ArgumentTypeError

    raise ArgumentTypeError("the text is empty")


def _count(text: str) -> int:
    """Return a number of one or more.

    :raises ValueError: it is less. The DAG runs of such a backfill would never start.
    """
    if (number := int(text)) < 1:
        raise ValueError
    return number


def _metrics_arg(config: Any) -> Any:
    text = "also set the gauges flowservice.lag_seconds and flowservice.windows.missing in Airflow's metrics"
    return config.Arg(("--metrics",), help=text, action="store_true")


def _failed_records_command(config: Any) -> Any:
    return config.ActionCommand(
        name="failed-records",
        help="Show which rows of a flow run failed, and why",
        description=_FAILED_RECORDS_DESCRIPTION,
        epilog=_FAILED_RECORDS_EPILOG,
        func=config.lazy_load_command("airflow_flowservice.cli.failed_records_command.failed_records"),
        args=(
            config.Arg(("--flow-run-id",), help="the flow run, never a DAG run", required=True),
            _conn_arg(config),
            config.Arg(("--limit",), help="read at most this number of failed rows", type=int, metavar="N"),
            config.Arg(("--file",), help="write the failed rows to this file, as JSON lines", metavar="FILE.jsonl"),
            config.ARG_OUTPUT,
            config.Arg(("--format",), help="deprecated: use --output", choices=("table", "json", "yaml", "plain")),
        ),
    )


def _flows_command(config: Any) -> Any:
    return config.ActionCommand(
        name="flows",
        help="List the dataflows of a sandbox, or print a DAG file for them",
        description=_FLOWS_DESCRIPTION,
        epilog=_FLOWS_EPILOG,
        func=config.lazy_load_command("airflow_flowservice.cli.flows_command.flows"),
        args=(
            _conn_arg(config),
            config.Arg(
                ("--flow-id",),
                help="only this dataflow; can be repeated",
                action="append",
                default=[],
                type=_flow_id_text,
            ),
            config.Arg(("--one-time",), help="only dataflows that on-demand flow runs can use", action="store_true"),
            config.Arg(
                ("-o", "--output"),
                help="format of the output; default: table",
                choices=("table", "json", "yaml", "plain", "dag"),
                default="table",
            ),
        ),
    )


def _windows_command(config: Any) -> Any:
    date = {"type": config.parsedate, "metavar": "DATE"}
    return config.ActionCommand(
        name="windows",
        help="Preview the window that each DAG run ingests, before a backfill",
        description=_WINDOWS_DESCRIPTION,
        epilog=_WINDOWS_EPILOG,
        func=config.lazy_load_command("airflow_flowservice.cli.windows_command.windows"),
        args=(
            config.Arg(("positional_dag_id",), help="deprecated: use --dag-id", nargs="?", metavar="dag_id"),
            config.Arg(("-d", "--dag-id"), help="the DAG whose windows are shown", type=_id_text),
            *_range_args(config, required=False),
            config.Arg(("--from-date",), help=_BACKFILL_DATE_HELP.format("from"), dest="first_date", **date),
            config.Arg(("--to-date",), help=_BACKFILL_DATE_HELP.format("to"), dest="last_date", **date),
            config.Arg(
                ("-t", "--task-id"),
                help="the OnDemandFlowRunOperator, if the DAG has several that differ",
                type=_id_text,
            ),
            *_output_args(config),
            config.ARG_DAGFILE_PATH,
            config.ARG_BUNDLE_NAME,
        ),
    )


def _ledger_commands(config: Any) -> Any:
    return config.GroupCommand(
        name="ledger",
        help="Manage the ledger of ingested windows",
        description=_LEDGER_DESCRIPTION,
        subcommands=(
            _ledger_check_command(config),
            _export_command(config),
            _forget_command(config),
            _import_command(config),
            _migrate_command(config),
        ),
    )


def _migrate_command(config: Any) -> Any:
    return config.ActionCommand(
        name="migrate",
        help="Create or upgrade the tables of the ledger",
        description=_MIGRATE_DESCRIPTION,
        epilog=_MIGRATE_EPILOG,
        func=config.lazy_load_command("airflow_flowservice.cli.ledger_command.migrate"),
        args=(*_ledger_args(config), config.ARG_OUTPUT),
    )


def _ledger_check_command(config: Any) -> Any:
    return config.ActionCommand(
        name="check",
        help="Compare the ledger with Flow Service",
        description=_LEDGER_CHECK_DESCRIPTION,
        epilog=_LEDGER_CHECK_EPILOG,
        func=config.lazy_load_command("airflow_flowservice.cli.ledger_check_command.check_ledger"),
        args=(
            config.Arg(("--flow-id",), help="only this dataflow", type=_flow_id_text),
            *_range_args(config, required=False),
            *_ledger_args(config),
            config.ARG_OUTPUT,
        ),
    )


def _export_command(config: Any) -> Any:
    formats = ("jsonl", "table", "json", "yaml", "plain")
    return config.ActionCommand(
        name="export",
        help="Print the entries of the ledger as JSON lines",
        description=_EXPORT_DESCRIPTION,
        epilog=_EXPORT_EPILOG,
        func=config.lazy_load_command("airflow_flowservice.cli.ledger_command.export"),
        args=(
            config.Arg(("--flow-id",), help="only this dataflow", type=_flow_id_text),
            config.Arg(("--sandbox",), help="only this sandbox", type=_id_text),
            *_range_args(config, required=False),
            *_ledger_args(config),
            config.Arg(("-o", "--output"), help="the format; default: jsonl", choices=formats, default="jsonl"),
        ),
    )


def _import_command(config: Any) -> Any:
    return config.ActionCommand(
        name="import",
        help="Store the entries of an export or of Airflow's history",
        description=_IMPORT_DESCRIPTION,
        epilog=_IMPORT_EPILOG,
        func=config.lazy_load_command("airflow_flowservice.cli.ledger_command.import_entries"),
        args=(
            config.Arg(("file",), help="file with JSON lines of `ledger export`; - for standard input", nargs="?"),
            config.Arg(("--from-history",), help="import from Airflow's history", action="store_true"),
            config.Arg(("-d", "--dag-id"), help="with --from-history: only tasks of this DAG", type=_id_text),
            config.Arg(("--confirm",), help="store the new entries", action="store_true"),
            *_ledger_args(config),
            config.ARG_OUTPUT,
        ),
    )


def _forget_command(config: Any) -> Any:
    return config.ActionCommand(
        name="forget",
        help="Remove the entries of a dataflow between two dates",
        description=_FORGET_DESCRIPTION,
        epilog=_FORGET_EPILOG,
        func=config.lazy_load_command("airflow_flowservice.cli.ledger_command.forget"),
        args=(
            config.Arg(("--flow-id",), help="the dataflow", required=True, type=_flow_id_text),
            config.Arg(("--sandbox",), help="the sandbox, if several have a dataflow with this id", type=_id_text),
            *_range_args(config, required=True),
            config.Arg(("--confirm",), help="remove the entries", action="store_true"),
            *_ledger_args(config),
            config.ARG_OUTPUT,
        ),
    )


def _ledger_args(config: Any) -> tuple[Any, ...]:
    return (
        config.Arg(("--ledger-conn-id",), help="the connection of the ledger's database", type=_id_text),
        config.Arg(("--conn-id",), help="the Flow Service connection; default: flowservice_default", type=_id_text),
    )


def _range_args(config: Any, *, required: bool) -> tuple[Any, ...]:
    """Return `--from` and `--to`, which have the same meaning in all commands: a range of time."""
    date = {"type": config.parsedate, "required": required, "metavar": "DATE"}
    begin_help = "start of a range of time, inclusive; default time zone: that of Airflow"
    return (
        config.Arg(("--from",), help=begin_help, dest="from_date", **date),
        config.Arg(("--to",), help="end of the range, exclusive", dest="to_date", **date),
    )


def _conn_arg(config: Any) -> Any:
    default = "flowservice_default"
    return config.Arg(("--conn-id",), help=f"the connection; default: {default}", default=default, type=_id_text)


def _output_args(config: Any) -> tuple[Any, ...]:
    """Return Airflow's `--output`, and `--json` as a deprecated alias of `--output json`."""
    alias = config.Arg(("--json",), help="deprecated: use --output json", action="store_true", dest="as_json")
    return (config.ARG_OUTPUT, alias)
