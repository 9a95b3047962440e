"""The page **Flow Service** in Airflow's UI: which windows of a dataflow are in."""
