"""Recipes that ship with xadapt."""
