# SPDX-License-Identifier: Apache-2.0
"""State of each window of a dataflow. Pure: without Airflow and HTTP."""
