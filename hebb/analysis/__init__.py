"""Figures and tables: each module computes one analysis of stored runs and draws it."""
