"""Zero-shot evaluation: one code path for every regime and every language."""
