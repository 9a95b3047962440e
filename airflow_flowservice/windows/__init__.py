"""The time window that a DAG run owns. Pure: no Airflow, no network."""
