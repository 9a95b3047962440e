# SPDX-License-Identifier: Apache-2.0
"""Airflow provider for on-demand ingestion in Adobe Experience Platform.

This module imports nothing, so that Airflow's discovery of providers and DAG files stay fast. Import names from their
modules: `hooks`, `operators`, `sensors`, `freshness`, `triggers`, `watchers`, `assets`, `alerts`, `links`,
`exceptions` and `testing`.
"""

__version__ = "0.1.0"
