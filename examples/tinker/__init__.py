"""Sampling for clients of Tinker: a tiny token model that the example target serves, and programs that ask."""
