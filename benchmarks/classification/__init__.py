"""The classification bundle's real runs: three public data sets, several starts, published numbers beside ours."""
