# SPDX-License-Identifier: Apache-2.0
"""Session of Airflow's metadata database for the commands."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from airflow_flowservice.cli.output import CommandError

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def metadata_session(*, alternative: str = "") -> Iterator[Any]:
    """Open a session of the metadata database.

    :param alternative: what to do without the database, for the error.
    :raises CommandError: the database cannot be read or written.
    """
    from airflow.utils.session import create_session
    from sqlalchemy.exc import DBAPIError

    try:
        with create_session() as session:
            yield session
    except DBAPIError as error:
        reason = str(error.orig).strip().partition("\n")[0]
        raise CommandError(
            f"Airflow's metadata database cannot be read ({type(error).__name__}: {reason}). "
            f"Run this with the scheduler's configuration{alternative}"
        ) from error
