"""What the public names of ``hebb`` are: networks, runs, searches, layers and scikit-learn estimators."""
