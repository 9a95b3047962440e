"""What this package is for: windows, creating a run once, waiting for it. Knows no Airflow."""
