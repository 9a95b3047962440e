"""Flow Service and IMS over HTTP; knows no Airflow. Start at `client.FlowServiceClient`."""
