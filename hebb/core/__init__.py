"""The ground floor: errors, seeds, the machine, shipped data. Imports nothing of the project."""
