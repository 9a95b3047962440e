"""Everything this package asks of Airflow. Private."""
