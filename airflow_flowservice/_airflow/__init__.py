"""Access Airflow: its versions, task context, timetables and database. Private."""
