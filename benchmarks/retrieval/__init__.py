"""Search measured: scores beside random weights and pixels, planted copies, and the time of a query."""
