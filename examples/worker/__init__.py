"""What `eas-queue pull` can call: a Python function, and a local HTTP target."""
