"""Airflow provider for on-demand ingestion in Adobe Experience Platform.

This module imports nothing, so that Airflow's discovery of providers and DAG files stay fast. Import names from their
modules: `hooks`, `operators`, `sensors`, `triggers`, `links`, `exceptions`.
"""

__version__ = "0.1.0"
