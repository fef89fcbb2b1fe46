"""Everything that knows Ray, and the trials and tables around it."""
