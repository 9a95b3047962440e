"""State of each window of a dataflow. Pure: without Airflow and HTTP."""
