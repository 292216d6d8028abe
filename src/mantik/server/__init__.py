"""The self-hosted platform: the stock MLflow server behind tokens that it issues and checks itself."""
