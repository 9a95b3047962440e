# SPDX-License-Identifier: Apache-2.0
"""Client for Flow Service and IMS over HTTP, independent of Airflow. The entry point is `client.FlowServiceClient`."""
