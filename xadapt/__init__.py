"""Intermediate-task training for zero-shot cross-lingual transfer: full fine-tuning, adapters, one evaluation."""

__version__ = "0.1.0"
