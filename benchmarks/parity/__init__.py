"""Agreement with the published numbers."""
