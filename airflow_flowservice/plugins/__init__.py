# SPDX-License-Identifier: Apache-2.0
"""Plugin that adds the page **Flow Service** to Airflow's UI; the page shows the state of a dataflow's windows."""
