"""One module per framework, each a translation of the framework's events into MLflow calls."""
