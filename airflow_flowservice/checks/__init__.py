# SPDX-License-Identifier: Apache-2.0
"""Checks of a connection and a dataflow, independent of Airflow."""
