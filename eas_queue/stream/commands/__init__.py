"""The commands, a module for each that need the same."""
