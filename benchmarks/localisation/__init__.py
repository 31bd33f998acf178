"""Where a classifier that never saw a box says that a finding is, against boxes, chance and the lungs."""
