"""Contract tests of the plugins between versions of MLflow, run by ``make matrix`` and not by pytest."""
