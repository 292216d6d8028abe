"""Makes the shell command of a job's entry point, with MLflow's own code for projects, in a process of its own.

`mlflow.projects.run` does the same and then runs the command itself. That would hide how the program ended behind an
exit code of 1, fail whenever the platform does not answer around the start, keep an MLflow in memory that waits, and
know no images. So MLflow reads the project, checks and quotes the parameters, fetches what `path` parameters name, and
the wrapper runs what comes out, as MLflow would: by ``bash -c``, in the project's folder.

MLflow is imported here and in no process that lasts. Nothing of the project is imported, whatever its files are called.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mantik.auth.cache import write_private
from mantik.exceptions import MantikError
from mantik.server.compute.task import Task, folders_at

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mantik.server.compute.folders import JobFolders

# MLflow takes them along where they are installed, and does without where they are not, as mlflow-skinny. That is more
# than a third of the time that it takes to be loaded, and every job waits for it.
_NOT_NEEDED: Final = ("numpy", "pandas", "scipy")


def main(folder: str) -> int:
    """Write what becomes of a job's entry point to `answer_path`.

    Args:
        folder: The job's folder.
    """
    folders = folders_at(Path(folder))
    task = Task.load(folders)
    os.chdir(folders.project)
    with left_out(_NOT_NEEDED):
        from mlflow.exceptions import MlflowException

    try:
        answer = {"command": command_of(task, folders), "token": _token()}
    except (MlflowException, OSError, ValueError, LookupError) as error:
        answer = {"problem": " ".join(str(error).split())}
    write_private(answer_path(folders), json.dumps(answer))
    return 0


def command_of(task: Task, folders: JobFolders) -> str:
    """Return the shell command of a job's entry point.

    Raises:
        MlflowException: MLflow does not know the entry point, or cannot make it of these parameters.
        OSError: What a parameter names cannot be fetched.
    """
    with left_out(_NOT_NEEDED):
        from mlflow.projects.utils import get_entry_point_command, load_project

    logging.getLogger("mlflow.projects").setLevel(logging.WARNING)
    project = load_project(str(folders.project))
    if project.docker_env:
        print(  # noqa: T201 - to the user, in the job's log
            "mantik: docker_env of the MLproject file has no effect here; an image is named in the backend "
            "configuration, with Environment.Apptainer",
            file=sys.stderr,
        )
    (command,) = get_entry_point_command(project, task.entry_point, dict(task.parameters), str(inputs(folders)))
    # MLflow makes a folder for what it fetches also where there is nothing to be fetched.
    for folder in [*inputs(folders).iterdir(), inputs(folders)]:
        with contextlib.suppress(OSError):
            folder.rmdir()
    return str(command)


def inputs(folders: JobFolders) -> Path:
    """Return the folder of a job to which MLflow fetches what its parameters name."""
    return folders.root / "inputs"


def answer_path(folders: JobFolders) -> Path:
    """Return where the answer is: a command and a token, or a problem. It is for the owner's eyes only."""
    return folders.state / "entry_point.json"


def read_answer(folders: JobFolders) -> Mapping[str, str]:
    """Return the answer, and remove it: a token is in it.

    Raises:
        OSError: There is none.
        ValueError: It cannot be read.
    """
    path = answer_path(folders)
    try:
        answer = json.loads(path.read_bytes())
    finally:
        path.unlink(missing_ok=True)
    return {str(name): str(value) for name, value in answer.items()}


@contextlib.contextmanager
def left_out(packages: tuple[str, ...]) -> Iterator[None]:
    """Import as if packages were not installed that have not been imported yet; later imports find them."""
    absent = dict.fromkeys(name for name in packages if name not in sys.modules)
    sys.modules.update(absent)  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in absent:
            del sys.modules[name]


def _token() -> str:
    """Return an access token that is good now: the one that the job was given may be as old as the queue is long."""
    from mantik.settings import Settings
    from mantik.tracking import prepare

    try:
        return prepare(Settings.from_environment()).token
    except MantikError:
        # What the job logs waits for the platform; whoever asks it directly will learn that it does not answer.
        return ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
