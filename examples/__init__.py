"""Small, real programs to put behind the queue."""
