"""Speed and memory beside a plain PyTorch loop."""
