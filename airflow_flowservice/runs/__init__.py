"""One flow run for each window: create it once, watch it, judge it. Pure."""
