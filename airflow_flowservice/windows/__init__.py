# SPDX-License-Identifier: Apache-2.0
"""Compute the time window of a DAG run. Pure: no Airflow, no network."""
