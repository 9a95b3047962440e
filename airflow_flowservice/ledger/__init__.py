# SPDX-License-Identifier: Apache-2.0
"""Durable record of the windows of each dataflow: which are claimed, created and ingested. Pure, except for SQL."""
