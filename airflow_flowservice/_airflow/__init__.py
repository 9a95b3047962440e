# SPDX-License-Identifier: Apache-2.0
"""Access Airflow: its versions, task context, timetables and database. Private."""
