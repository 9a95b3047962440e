"""Checks of a connection and a dataflow, independent of Airflow."""
