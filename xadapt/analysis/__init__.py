"""From tidy scores to tables: scorecard, means per language family, report."""
