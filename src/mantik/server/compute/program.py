"""The shell in which the program of a job runs: modules, the user's commands, the entry point, each as it was written.

The script is a constant. What users write comes to it as arguments and as variables: commands are run as commands,
which they are, and nothing else is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mantik.compute.backend_config import BackendConfig

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mantik.compute.environment import Apptainer, Environment
    from mantik.server.compute.folders import JobFolders
    from mantik.server.compute.job_environment import JobEnvironment
    from mantik.server.compute.task import Task

_KEPT: Final = "MANTIK_KEPT_"
_FIRST: Final = "MANTIK_FIRST"

# Arguments: how many modules, the modules; the same for commands before and after; then the program with its arguments.
#
# Profiles and modules set variables of the job as they like: what the job was given comes back after them.
# A job that was told to stop starts nothing more.
_SCRIPT: Final = r"""
stopped=
trap stopped=1 TERM
modules=("${@:2:$1}"); shift $(($1 + 1))
before=("${@:2:$1}"); shift $(($1 + 1))
after=("${@:2:$1}"); shift $(($1 + 1))
folder=$PWD

for module in "${modules[@]}"; do
    module load "$module" || { code=$?; echo "mantik: the module $module could not be loaded" >&2; exit "$code"; }
done
for kept in ${!MANTIK_KEPT_@}; do
    export "${kept#MANTIK_KEPT_}=${!kept}"
    unset "$kept"
done
[ -z "$MANTIK_FIRST" ] || PATH=$MANTIK_FIRST:$PATH
unset MANTIK_FIRST

for command in "${before[@]}"; do
    [ -z "$stopped" ] || exit 143
    eval "$command" || { code=$?; echo "mantik: the command before the run failed: $command" >&2; exit "$code"; }
done
[ -z "$stopped" ] || exit 143
cd "$folder" || exit

if [ "$1" = apptainer ] && ! command -v apptainer >/dev/null; then
    if ! command -v singularity >/dev/null; then
        echo "mantik: there is neither apptainer nor singularity on the PATH of this machine" >&2
        exit 127
    fi
    shift
    set -- singularity "$@"
fi
# In the place of this shell, a program is seen as it is: also how it ends.
[ ${#after[@]} -gt 0 ] || exec "$@"
"$@"
code=$?
export MANTIK_EXIT_CODE=$code
for command in "${after[@]}"; do
    [ -z "$stopped" ] || exit "$code"
    if ! eval "$command"; then
        echo "mantik: the command after the run failed: $command" >&2
        [ "$code" -ne 0 ] || code=1
    fi
done
exit "$code"
"""


def command_line(task: Task, environment: Environment, folders: JobFolders, command: str) -> list[str]:
    """Return the arguments that run a job's program.

    Args:
        task: The job.
        environment: The section of its backend configuration.
        folders: Its folders.
        command: The shell command of the entry point, as MLflow has made it from the parameters.
    """
    before = environment.pre_run_on_compute_node
    after = environment.post_run_on_compute_node
    if not task.has_login_node:
        before = environment.pre_run_on_login_node + before
        after += environment.post_run_on_login_node
    program = ["bash", "-c", command]
    if environment.apptainer is not None:
        program = [*_apptainer(task, environment.apptainer, folders), *program]
    # Modules are defined by the profiles that a login shell reads.
    shell = ["bash", *(["-l"] if environment.modules else []), "-c", _SCRIPT, "mantik-job"]
    return [*shell, *_counted(environment.modules), *_counted(before), *_counted(after), *program]


def shell_variables(variables: JobEnvironment, environment: Environment) -> dict[str, str]:
    """Return the environment in which the shell is started, so that the program gets the variables of its job."""
    if not environment.modules:
        return variables.variables()
    kept = {f"{_KEPT}{name}": value for name, value in variables.own.items()}
    return {**variables.base, **kept, _FIRST: ":".join(variables.first)}


def _apptainer(task: Task, image: Apptainer, folders: JobFolders) -> list[str]:
    options = list(image.options)
    # What was asked for: a batch system gives GPUs, and the task does not say which.
    gpus = BackendConfig.from_mapping(task.backend_config).resources.gpus_per_node
    if gpus and "--nv" not in options:
        options.insert(0, "--nv")
    path = str(folders.project / image.path) if image.is_local else image.path
    # The login and the spool of the job are beside the project.
    places = ["--pwd", str(folders.project), "--bind", str(folders.root)]
    return ["apptainer", "exec", *places, *options, path]


def _counted(texts: Sequence[str]) -> list[str]:
    return [str(len(texts)), *texts]
