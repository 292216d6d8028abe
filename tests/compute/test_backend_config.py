from __future__ import annotations

import json
import textwrap
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from mantik.compute import BackendConfig
from mantik.compute.environment import Apptainer, Environment
from mantik.compute.mistakes import Mistakes
from mantik.compute.resources import Resources
from mantik.exceptions import ProjectError

if TYPE_CHECKING:
    from pathlib import Path

QUEUE = {"Resources": {"Queue": "batch"}}


def config_of(text: str, tmp_path: Path, name: str = "config.yaml") -> BackendConfig:
    """Read a file with this text."""
    path = tmp_path / name
    path.write_text(textwrap.dedent(text), encoding="utf-8")
    return BackendConfig.from_file(path)


def mistakes_of(content: dict[str, Any]) -> tuple[str, ...]:
    """Return what is wrong with a configuration."""
    with pytest.raises(ProjectError) as raised:
        BackendConfig.from_mapping(content)
    for mistake in raised.value.mistakes:
        assert mistake in str(raised.value)
    return raised.value.mistakes


def asking(**resources: object) -> dict[str, Any]:
    """Return a configuration with these resources besides a queue."""
    return {"Resources": {"Queue": "batch", **resources}}


def inside(**environment: object) -> dict[str, Any]:
    """Return a configuration with this environment."""
    return {**QUEUE, "Environment": environment}


FULL = """
    UnicoreApiUrl: https://hpc.example/rest/core
    Environment:
      Apptainer:
        Path: image.sif
        Type: local
        Options: [--nv]
      Modules: [Stages/2023, Python/3.11]
      Variables:
        OMP_NUM_THREADS: 4
        LEVEL: debug
      PreRunCommandOnLoginNode: echo login
      PreRunCommandOnComputeNode: [echo one, echo two, 1]
      PostRunCommandOnComputeNode: echo after
      PostRunCommandOnLoginNode: [echo gone]
    Resources:
      Queue: batch
      Runtime: 12h
      Nodes: 2
      TotalCPUs: 16
      CPUsPerNode: 8
      GPUsPerNode: 4
      MemoryPerNode: 12GiB
      QoS: normal
      Reservation: course
      NodeConstraints: gpu&a100
    Exclude: ["*.sif", data/]
    """
EVERYTHING = BackendConfig(
    resources=Resources(
        queue="batch",
        runtime=43200,
        nodes=2,
        cpus=16,
        cpus_per_node=8,
        gpus_per_node=4,
        memory_per_node=12 * 2**30,
        qos="normal",
        reservation="course",
        node_constraints="gpu&a100",
    ),
    environment=Environment(
        apptainer=Apptainer("image.sif", is_local=True, options=("--nv",)),
        modules=("Stages/2023", "Python/3.11"),
        variables={"OMP_NUM_THREADS": "4", "LEVEL": "debug"},
        pre_run_on_login_node=("echo login",),
        pre_run_on_compute_node=("echo one", "echo two", "1"),
        post_run_on_compute_node=("echo after",),
        post_run_on_login_node=("echo gone",),
    ),
    exclude=("*.sif", "data/"),
    unused=("UnicoreApiUrl",),
)


def test_every_key(tmp_path: Path) -> None:
    """YAML with every key is read, with units and casts."""
    assert config_of(FULL, tmp_path) == EVERYTHING


def test_json_is_read_as_yaml_is(tmp_path: Path) -> None:
    """The same in a file that ends in .json."""
    text = json.dumps({**EVERYTHING.to_mapping(), "UnicoreApiUrl": "https://hpc.example/rest/core"})
    assert config_of(text, tmp_path, "config.json") == EVERYTHING


def test_old_spellings_mean_the_same(tmp_path: Path) -> None:
    """Renamed keys are read in the spelling of 0.1.2 as well; texts that are numbers are cast."""
    old = """
        UnicoreApiUrl: https://hpc.example/rest/core
        Environment:
          Singularity: {Path: image.sif, Type: lOcAl}
          PreRunCommand: {Command: echo a, ExecuteOnLoginNode: true}
          PostRunCommand: {Command: echo b}
        Resources: {Queue: batch, CPUs: "2", Memory: 1GiB, Nodes: 1.0}
        """
    config = config_of(old, tmp_path)
    assert config.environment.apptainer == Apptainer("image.sif", is_local=True)
    assert (config.environment.pre_run_on_login_node, config.environment.post_run_on_compute_node) == (
        ("echo a",),
        ("echo b",),
    )
    assert (config.resources.cpus, config.resources.memory_per_node, config.resources.nodes) == (2, 2**30, 1)


@pytest.mark.parametrize("python", ["/home/ada/venv", {"Path": "/home/ada/venv"}])
def test_both_spellings_of_python(python: object) -> None:
    """A virtual environment is a path or a mapping with one."""
    assert BackendConfig.from_mapping(inside(Python=python)).environment.python == "/home/ada/venv"


def test_all_spellings_of_commands_go_together() -> None:
    """Commands of the old and the new keys are kept, the old ones first."""
    config = BackendConfig.from_mapping(
        inside(
            PreRunCommand={"Command": ["echo 1", "echo 2"]},
            PreRunCommandOnComputeNode="echo 3",
            PostRunCommand="echo 4\necho 5",
        )
    )
    assert config.environment.pre_run_on_compute_node == ("echo 1", "echo 2", "echo 3")
    assert config.environment.post_run_on_compute_node == ("echo 4\necho 5",)


def test_options_in_one_text_are_split_as_a_shell_would() -> None:
    """Options are a list, or one text."""
    image = {"Path": "image.sif", "Options": "--nv --bind '/a b:/c'"}
    config = BackendConfig.from_mapping(inside(Apptainer=image))
    assert config.environment.apptainer is not None
    assert config.environment.apptainer.options == ("--nv", "--bind", "/a b:/c")


def test_a_remote_image_is_a_path_on_the_cluster_or_an_address() -> None:
    """Remote images are not of the project."""
    for path in ("/images/a.sif", "docker://python:3.11"):
        image = {"Path": path, "Type": "remote"}
        config = BackendConfig.from_mapping(inside(Apptainer=image))
        assert config.environment.apptainer == Apptainer(path, is_local=False)


MISTAKES = [
    (asking(Runtime="12hours"), "Resources.Runtime: '12hours' is no duration, expected a whole number and one unit of"),
    (asking(Runtime=43200), "Resources.Runtime: 43200 has no unit, expected a whole number and one"),
    (asking(Memory="12"), "Resources.Memory: '12' has no unit, expected a number and a unit, e.g. 12GiB"),
    (asking(Nodes=0), "Resources.Nodes: 0 is no whole number from 1 on"),
    (asking(Nodes="two"), "Resources.Nodes: 'two' is no whole number from 1 on"),
    (asking(Nodes=True), "Resources.Nodes: True is no whole number from 1 on"),
    (asking(Nodes=1.5), "Resources.Nodes: 1.5 is no whole number from 1 on"),
    (asking(Nodes=float("inf")), "Resources.Nodes: inf is no whole number from 1 on"),
    (asking(GPUsPerNode=-1), "Resources.GPUsPerNode: -1 is no whole number from 0 on"),
    (asking(Nod=1), "Resources.Nod: is unknown; did you mean Nodes?"),
    (asking(Zebra=1), "Resources.Zebra: is unknown; expected one of Queue, Runtime"),
    (asking(Memory="1G", MemoryPerNode="1G"), "Resources.Memory: is the same as MemoryPerNode, which is there as well"),
    (asking(CPUs=4, Nodes=2, CPUsPerNode=4), "Resources.CPUs: 4 contradicts 2 node(s) with 4 CPUs each"),
    (asking(QoS="a b"), "Resources.QoS: 'a b' cannot be used, expected one word, e.g. normal"),
    (asking(Reservation="a\n#SBATCH --uid=0"), "Resources.Reservation: 'a\\n#SBATCH --uid=0' is no text, expected one"),
    ({"Resources": {}}, "Resources.Queue: is missing, expected the name of a queue (a partition of Slurm), e.g. batch"),
    ({"Resources": {"Queue": ["a"]}}, "Resources.Queue: ['a'] is no text, expected the name of a queue"),
    ({"Resources": "batch"}, "Resources: 'batch' is no mapping, expected e.g. {Queue: batch, Runtime: 12h}"),
    ({}, "Resources: is missing, expected at least {Queue: ...}"),
    ({**QUEUE, "Queue": "batch"}, "Queue: is unknown; it belongs below Resources"),
    ({**QUEUE, "Python": "/home/ada/venv"}, "Python: is unknown; it belongs below Environment"),
    ({**QUEUE, "Enviroment": {}}, "Enviroment: is unknown; did you mean Environment?"),
    ({**QUEUE, "Exclude": ["!"]}, "Exclude[0]: '!' is no pattern, expected e.g. '*.sif' or data/"),
    ({**QUEUE, "Exclude": ["a", {}]}, "Exclude[1]: {} is no text, expected a list of patterns"),
    ({**QUEUE, "SingularityImage": "a.sif"}, "SingularityImage: is how mantik 0.1.0 named the image. Write now:"),
    (inside(TEST_VAR="x"), "Environment.TEST_VAR: is unknown; variables of the job are written below Environment.Vari"),
    (inside(Python="venv"), "Environment.Python: 'venv' is no absolute path, expected the absolute path of a virtual"),
    (inside(Python={"Pth": "/v", "Path": "/v"}), "Environment.Python.Pth: is unknown; did you mean Path?"),
    (inside(Python={}), "Environment.Python.Path: is missing, expected the absolute path of a virtual environment"),
    (inside(Python="/v", Apptainer="a.sif"), "Environment.Python: cannot be used in an image; keep it or Apptainer"),
    (inside(Apptainer="a", Singularity="b"), "Environment.Singularity: is the same as Apptainer"),
    (inside(Apptainer={"Type": "local"}), "Environment.Apptainer.Path: is missing, expected the path of an image"),
    (inside(Apptainer={"Path": "a", "Type": "far"}), "Environment.Apptainer.Type: 'far' cannot be used, expected loca"),
    (inside(Apptainer="/a.sif"), "Environment.Apptainer.Path: '/a.sif' is not in the project."),
    (inside(Apptainer="../a.sif"), "Environment.Apptainer.Path: '../a.sif' is not in the project."),
    (inside(Apptainer={"Path": "a", "Type": "remote"}), "Environment.Apptainer.Path: 'a' is not on the cluster"),
    (inside(Apptainer={"Path": "a", "Options": "'"}), "Environment.Apptainer.Options: \"'\" cannot be split into argu"),
    (inside(Apptainer=7), "Environment.Apptainer: 7 is no image, expected a path"),
    (inside(Modules=["a; rm -rf /"]), "Environment.Modules: 'a; rm -rf /' is no name of a module"),
    (inside(Modules=["--help"]), "Environment.Modules: '--help' is no name of a module"),
    (inside(Variables=["A=1"]), "Environment.Variables: ['A=1'] is no mapping, expected names and values"),
    (inside(Variables={"A": True}), "Environment.Variables.A: True is no text, expected a text or a number, in quotes"),
    (inside(Variables={"A": None}), "Environment.Variables.A: None is no text, expected a text or a number"),
    (inside(Variables={"A B": 1}), "Environment.Variables.A B: is no name of a variable"),
    (inside(Variables={7: 1}), "Environment.Variables.7: is no name of a variable"),
    (inside(PreRunCommand={"Command": "a", "Comand": "a"}), "Environment.PreRunCommand.Comand: is unknown; did you"),
    (inside(PreRunCommand={}), "Environment.PreRunCommand.Command: is missing, expected a command"),
    (inside(PreRunCommand={"Command": "a", "ExecuteOnLoginNode": "no"}), "Environment.PreRunCommand.ExecuteOnLogin"),
    (inside(PreRunCommandOnLoginNode=["a", True]), "Environment.PreRunCommandOnLoginNode[1]: True is no text"),
    (inside(PreRunCommandOnLoginNode="a\0b"), "Environment.PreRunCommandOnLoginNode: 'a\\x00b' is no text"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("content", "expected"), MISTAKES, ids=[expected.partition(":")[0] for _, expected in MISTAKES]
)
def test_a_mistake_is_named_with_its_path(content: dict[str, Any], expected: str) -> None:
    """Each mistake says where it is, what is there, and what was expected."""
    (mistake,) = mistakes_of(content)
    assert mistake.startswith(expected)


def test_a_duration_in_words_of_its_own() -> None:
    """The whole sentence about a unit that is none."""
    assert mistakes_of(asking(Runtime="12hours")) == (
        "Resources.Runtime: '12hours' is no duration, expected a whole number and one unit of s, m, h, d, e.g. 12h",
    )


def test_all_mistakes_are_in_one_error() -> None:
    """One error has all of them, each in a line of its own."""
    mistakes = mistakes_of(
        {"Resources": {"Runtime": "12hours", "Nod": 1}, "Environment": {"Python": "venv"}, "Exclud": []}
    )
    assert [mistake.partition(":")[0] for mistake in mistakes] == [
        "Exclud",
        "Resources.Nod",
        "Resources.Queue",
        "Resources.Runtime",
        "Environment.Python",
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [", "it is no valid YAML (line 1"),
        ("- a\n- b\n", "it holds a list, expected a mapping"),
        ("", "it holds nothing, expected a mapping"),
        ("just a text", "it holds a single value (str)"),
        ("Resources: {Queue: a}\nResources: {Queue: b}\n", "'Resources' twice"),
        ("a: 2020-13-45\n", "it is no valid YAML"),
        ("a: &a [x]\nb: &b [*a]\nc: &c [*b]\n", "aliases of aliases"),
        ("[" * 5000, "it is nested too deeply"),
        ("a: !!python/object/apply:os.system [ls]\n", "it is no valid YAML"),
        ("\x01", "it is no valid YAML"),
    ],
)
def test_a_file_that_is_no_configuration(text: str, words: str, tmp_path: Path) -> None:
    """What is no mapping in YAML is one sentence with the place."""
    with pytest.raises(ProjectError) as raised:
        config_of(text, tmp_path)
    assert str(raised.value).startswith(f"The backend configuration {tmp_path / 'config.yaml'} cannot be used: it ")
    assert words in str(raised.value)


@pytest.mark.parametrize("text", ["{", '{"a": 1, "a": 2}', "Resources: {Queue: a}"])
def test_a_json_file_that_is_none(text: str, tmp_path: Path) -> None:
    """A file that ends in .json has to hold JSON, each key once."""
    with pytest.raises(ProjectError, match="it is no valid JSON"):
        config_of(text, tmp_path, "config.json")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    """A missing, binary or huge file is one sentence."""
    with pytest.raises(ProjectError, match=r"it cannot be read \(No such file or directory\)"):
        BackendConfig.from_file(tmp_path / "missing.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ProjectError, match="it is no text in UTF-8"):
        BackendConfig.from_file(tmp_path / "binary.yaml")
    (tmp_path / "huge.yaml").write_bytes(b"#" * (2**20 + 1))
    with pytest.raises(ProjectError, match="it is larger than 1 MiB"):
        BackendConfig.from_file(tmp_path / "huge.yaml")


def test_an_alias_may_be_used(tmp_path: Path) -> None:
    """Anchors of plain values are fine; only what unfolds again and again is refused."""
    config = config_of(
        """
        Resources: {Queue: &name batch, QoS: *name}
        Environment:
          PreRunCommandOnLoginNode: &hello [echo hello]
          PostRunCommandOnLoginNode: *hello
        """,
        tmp_path,
    )
    assert (config.resources.qos, config.environment.post_run_on_login_node) == ("batch", ("echo hello",))


def test_a_huge_value_is_shown_shortly() -> None:
    """A mistake stays readable whatever the value is."""
    deep: list[Any] = []
    for _ in range(200):
        deep = [deep]
    for value in ("x" * 10**6, deep, list(range(10**5)), int("9" * 4000)):
        (mistake,) = mistakes_of(asking(Nodes=value))
        assert len(mistake) < 300


words = some.text("abcdefgXYZ012-_.&|", min_size=1, max_size=8)
resources = some.builds(
    Resources,
    queue=words,
    runtime=some.none() | some.integers(1, 10**7),
    nodes=some.none() | some.integers(1, 99),
    cpus=some.none() | some.integers(1, 99),
    gpus_per_node=some.none() | some.integers(0, 9),
    memory_per_node=some.none() | some.integers(1, 10**14),
    qos=some.none() | words,
    reservation=some.none() | words,
    node_constraints=some.none() | words,
)
commands = some.lists(some.text("abc $'\"\n#&", min_size=1).filter(str.strip), max_size=2).map(tuple)
environments = some.builds(
    Environment,
    apptainer=some.none() | some.builds(Apptainer, path=some.just("images/a.sif"), options=commands),
    modules=some.lists(some.sampled_from(["GCC/12", "Python"]), max_size=2).map(tuple),
    variables=some.dictionaries(some.sampled_from(["A", "b_2"]), some.text("aé'$ \n", max_size=5)),
    pre_run_on_login_node=commands,
    pre_run_on_compute_node=commands,
    post_run_on_compute_node=commands,
    post_run_on_login_node=commands,
)


@given(some.builds(BackendConfig, resources=resources, environment=environments, exclude=some.just(("*.sif",))))
def test_a_configuration_that_is_written_is_read_as_the_same(config: BackendConfig) -> None:
    """`to_json` of a configuration is a file of the same one."""
    assert BackendConfig.from_mapping(json.loads(config.to_json())) == config


json_values = some.recursive(
    some.none() | some.booleans() | some.integers() | some.floats() | some.text(max_size=9),
    lambda inner: (
        some.lists(inner, max_size=3)
        | some.dictionaries(
            some.sampled_from(["Path", "Queue", "Runtime", "Command", "x"]) | some.text(max_size=3), inner, max_size=3
        )
    ),
    max_leaves=9,
)
keys = some.sampled_from(["Resources", "Environment", "Exclude", "UnicoreApiUrl", "SingularityImage", "?"])


@given(some.dictionaries(keys, json_values, max_size=4))
def test_anything_is_read_or_refused(content: dict[str, Any]) -> None:
    """No content breaks the parser: it is a configuration, or an error that names its mistakes."""
    mistakes = Mistakes()
    config = BackendConfig.read(content, mistakes)
    assert mistakes.found or replace(config, unused=()) == BackendConfig.from_mapping(json.loads(config.to_json()))
