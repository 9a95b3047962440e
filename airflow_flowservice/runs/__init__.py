# SPDX-License-Identifier: Apache-2.0
"""One flow run for each window: create it once, watch it, judge it. Pure."""
