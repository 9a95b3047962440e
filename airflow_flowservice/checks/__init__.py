"""Checks of a connection and of a dataflow. Pure."""
