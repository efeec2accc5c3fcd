"""The parts of `python -m benchmarks.against`: each has rows, what is compared, and makes samples of them."""
