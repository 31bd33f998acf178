"""Whether a device computes what the CPU does, and how fast."""
