"""A study: recipe to plan to stages, results in a store."""
