"""Which parameters move: full fine-tuning or a bottleneck adapter; one protocol, one file each."""
