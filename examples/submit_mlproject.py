"""Submit the project in examples/mlproject as a job, and wait until it has ended.

Before it runs, tell it where the platform is and who you are; the platform needs a compute backend::

    export MLFLOW_TRACKING_URI=https://test.cloud.mantik.ai
    export MANTIK_USERNAME=...
    export MANTIK_PASSWORD=...

    python examples/submit_mlproject.py
"""

import sys
from pathlib import Path

import mlflow

import mantik

PROJECT = Path(__file__).parent / "mlproject"


def main() -> int:
    """Submit, wait, print the outcome, and return the job's exit code."""
    # Logs in.
    client = mantik.ComputeBackendClient.from_env()
    experiment = mlflow.set_experiment("wine")

    response = client.submit_run(
        experiment_id=int(experiment.experiment_id),
        mlproject_path=PROJECT,
        mlflow_parameters={"alpha": 0.05, "l1_ratio": 0.2},
        backend_config="backend-config.yaml",
    )
    print(response.content)
    print(f"Its run: {response.link}")

    job = response.wait()
    print(job)
    return job.shell_code


if __name__ == "__main__":
    sys.exit(main())
