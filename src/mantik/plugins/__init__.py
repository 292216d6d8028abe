"""What MLflow's entry points load.

Each module here is tiny and imports neither mlflow nor the rest of mantik at its top: it is loaded in the middle of
`import mlflow`.
"""
