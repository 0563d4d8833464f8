"""Prices in cents, shared by catalog and orders."""

PRICES = {"tea": 450, "cup": 1200, "spoon": 300}
