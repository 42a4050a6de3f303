"""Hooks and optimizer parts for MMEngine runners."""
