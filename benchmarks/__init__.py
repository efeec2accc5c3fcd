"""Measurements. They print ratios of one run and never fail by time; docs/performance.md keeps what they showed."""
