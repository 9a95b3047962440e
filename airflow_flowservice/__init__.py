"""Airflow provider for on-demand ingestion in Adobe Experience Platform.

Imports nothing, so that Airflow's discovery and DAG files pay nothing for it. Names live in
their modules: `hooks`, `operators`, `sensors`, `triggers`, `links`, `exceptions`.
"""

__version__ = "0.1.0"
