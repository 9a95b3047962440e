"""Compute the time window of a DAG run. Pure: no Airflow, no network."""
