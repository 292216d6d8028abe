"""Tell malignant tumours from benign ones with scikit-learn, and track all of it.

Install what it needs, and tell it where the platform is and who you are::

    pip install 'mantik[sklearn]'
    export MLFLOW_TRACKING_URI=https://test.cloud.mantik.ai
    export MANTIK_USERNAME=...
    export MANTIK_PASSWORD=...

    python examples/sklearn_pipeline.py
"""

import mlflow
import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_breast_cancer
from sklearn.feature_selection import SelectKBest
from sklearn.inspection import permutation_importance
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import classification_report, fbeta_score
from sklearn.model_selection import GridSearchCV, RepeatedStratifiedKFold, cross_validate, train_test_split
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

import mantik


def load_data() -> tuple[pd.DataFrame, pd.Series]:
    """Return 30 measurements of the cell nuclei in each of 569 samples, and the diagnoses."""
    data = load_breast_cancer(as_frame=True)
    return data.data, data.target.map(dict(enumerate(data.target_names))).rename("diagnosis")


def build_model(columns: list[str]) -> Pipeline:
    """Return the model: a logistic regression on the best of the measurements."""
    # Areas and errors span orders of magnitude.
    skewed = [name for name in columns if "area" in name or "error" in name]
    logarithm = FunctionTransformer(np.log1p, feature_names_out="one-to-one")
    prepare = ColumnTransformer(
        [("skewed", make_pipeline(logarithm, StandardScaler()), skewed)],
        remainder=StandardScaler(),
        verbose_feature_names_out=False,
    )
    return Pipeline([("prepare", prepare), ("select", SelectKBest()), ("classify", LogisticRegression(max_iter=1000))])


def main() -> str:
    """Search for the best model, see how good it is, and return the id of the run."""
    # Logs in. From here on everything that is done with scikit-learn is recorded.
    mantik.autolog(sklearn={"pos_label": "malignant", "max_tuning_runs": None})
    mlflow.set_experiment("breast-cancer")

    measurements, diagnosis = load_data()
    split = train_test_split(measurements, diagnosis, test_size=0.3, stratify=diagnosis, random_state=2)
    train, test, train_diagnosis, test_diagnosis = split

    with mlflow.start_run(run_name="logistic-regression", tags={"data": "sklearn.datasets.load_breast_cancer"}) as run:
        grid = {"select__k": [10, 20, 30], "classify__C": [0.1, 0.3, 1.0, 3.0, 10.0]}
        search = GridSearchCV(build_model(list(measurements)), grid, scoring="neg_log_loss", cv=5, n_jobs=2)
        search.fit(train, train_diagnosis)

        # How much of that is chance: the chosen model on fifteen other splits.
        folds = RepeatedStratifiedKFold(n_splits=5, n_repeats=3, random_state=0)
        cross_validate(
            search.best_estimator_, train, train_diagnosis, cv=folds, scoring=["roc_auc", "balanced_accuracy"]
        )

        # What it does with samples that it has not seen. The pictures of them come by themselves.
        predictions = search.predict(test)
        print(classification_report(test_diagnosis, predictions))
        # To miss a malignant tumour is worse than a false alarm.
        f2 = fbeta_score(test_diagnosis, predictions, beta=2, pos_label="malignant")
        print(f"F2 of malignant tumours: {f2:.3f}")

        # Which measurements it relies on there.
        permutation_importance(search, test, test_diagnosis, scoring="neg_log_loss", n_repeats=10, random_state=0)
    return run.info.run_id


if __name__ == "__main__":
    main()
