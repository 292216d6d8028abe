"""Estimate how much alcohol a wine has from its other measurements.

It knows nothing of a platform: whoever runs it as a job says where to track, and in which run.
"""

import argparse

import mlflow
import sklearn
from sklearn.datasets import load_wine
from sklearn.linear_model import ElasticNet
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler


def main(alpha: float, l1_ratio: float) -> None:
    """Train on 133 wines and see how good the estimates of 45 others are."""
    wines = load_wine(as_frame=True).data
    measurements, alcohol = wines.drop(columns="alcohol"), wines["alcohol"]
    train, test, train_alcohol, test_alcohol = train_test_split(measurements, alcohol, random_state=0)

    # In a job this is the job's run. The parameters of the entry point are recorded there already.
    with mlflow.start_run():
        mlflow.set_tag("data", "sklearn.datasets.load_wine")
        mlflow.log_param("n_train", len(train))

        model = make_pipeline(StandardScaler(), ElasticNet(alpha=alpha, l1_ratio=l1_ratio, random_state=0))
        model.fit(train, train_alcohol)

        estimates = model.predict(test)
        metrics = {
            "rmse": root_mean_squared_error(test_alcohol, estimates),
            "mae": mean_absolute_error(test_alcohol, estimates),
            "r2": r2_score(test_alcohol, estimates),
        }
        mlflow.log_metrics(metrics)
        for name, value in metrics.items():
            print(f"{name} of alcohol: {value:.3f}")

        used = {name: weight for name, weight in zip(train, model[-1].coef_, strict=True) if weight}
        mlflow.log_dict(used, "coefficients.json")
        # What the model needs is known; MLflow would take some seconds of the job to find out.
        needs = [f"scikit-learn=={sklearn.__version__}", "pandas"]
        mlflow.sklearn.log_model(model, name="model", input_example=test.head(2), pip_requirements=needs)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--alpha", type=float, required=True, help="strength of the regularization")
    parser.add_argument("--l1-ratio", type=float, required=True, help="its L1 part, from 0 to 1")
    arguments = parser.parse_args()
    main(arguments.alpha, arguments.l1_ratio)
