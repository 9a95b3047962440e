"""The state of each window, and the spans without one. Pure."""
