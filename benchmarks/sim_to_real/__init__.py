"""From rendered to real films."""
