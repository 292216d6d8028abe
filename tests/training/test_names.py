from __future__ import annotations

import pickle
import subprocess
import sys
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow.exceptions import MlflowException
from mlflow.utils.validation import MAX_ENTITY_KEY_LENGTH, _validate_metric, _validate_param, _validate_tag_name

from mantik.training.names import NameMap, distinct, mapped

# Half of the names are made of what MLflow treats specially.
ODD = st.text(st.sampled_from("ab/.@% :-_\nü\\\ud800"), max_size=12)
NAMES = ODD | st.text(max_size=300) | st.text(st.characters(codec=None), max_size=20) | ODD.map(lambda name: name * 30)


def is_accepted(name: str) -> bool:
    """Ask MLflow, of metrics, params and the keys of tags."""
    try:
        _validate_metric(name, 1.0, 0, 0)
        _validate_param(name, "1")
        _validate_tag_name(name)
    except MlflowException:
        return False
    return True


@given(NAMES)
def test_mlflow_accepts_every_mapped_name(name: str) -> None:
    """Whatever the name, MLflow's own validators accept what it is mapped to, and mapping that changes nothing."""
    assert is_accepted(mapped(name))
    assert len(mapped(name)) <= MAX_ENTITY_KEY_LENGTH
    assert mapped(mapped(name)) == mapped(name)


@given(NAMES)
def test_a_name_that_mlflow_accepts_stays(name: str) -> None:
    """A name is mapped if, and only if, MLflow does not accept it."""
    assert (mapped(name) == name) == is_accepted(name)


@given(st.lists(NAMES, unique=True, max_size=30))
def test_two_names_never_meet(names: list[str]) -> None:
    """Different names are mapped to different names."""
    assert len({mapped(name) for name in names}) == len(names)


@pytest.mark.parametrize(
    ("name", "readable"),
    [
        ("val/acc@1", "val/acc_at_1"),
        ("acc%", "acc_percent"),
        ("größe²·", "größe²_"),
        ("loss(train)", "loss_train_"),
        ("/absolute", "absolute"),
        ("a//b/./c/", "a/b/c"),
        ("../up", "up"),
        ("..hidden", "hidden"),
        ("", "unnamed"),
        (".", "unnamed"),
        ("x" * 251, "x" * 241),
        ("x" * 240 + "/y@", "x" * 240),
    ],
)
def test_a_mapped_name_is_readable(name: str, readable: str) -> None:
    """What stands in front of the eight digits tells what it was."""
    front, hyphen, digits = mapped(name).rpartition("-")
    assert (front, hyphen) == (readable, "-")
    assert len(digits) == 8
    assert set(digits) <= set("0123456789abcdef")


@pytest.mark.parametrize("name", ["loss", "train/loss", "größe", "損失", "a:b", "a b", "loss-epoch_1.0", "x" * 250])
def test_letters_of_all_languages_and_colons_stay(name: str) -> None:
    """Names that MLflow accepts are what they are."""
    assert mapped(name) == name


def test_every_process_maps_alike() -> None:
    """Another process, with another seed for Python's hashes, comes to the same names."""
    names = ["val/acc@1", "", "a//b", "x" * 999]
    code = f"from mantik.training.names import mapped; print([mapped(name) for name in {names!r}])"
    output = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
        env={"PYTHONHASHSEED": "1"},
    ).stdout
    assert output.strip() == str([mapped(name) for name in names])


def test_a_name_that_is_taken_gets_another() -> None:
    """The second and the third of the same text have names of their own, and those are the same every time."""

    def given_names() -> list[str]:
        names: list[str] = []
        for _ in range(3):
            names.append(distinct("a/b", names))
        return names

    names = given_names()
    assert names[0] == "a/b"
    assert len(set(names)) == 3
    assert all(is_accepted(name) and name.startswith("a/b") for name in names)
    assert given_names() == names


def test_a_map_tells_once_what_it_had_to_map() -> None:
    """`take_new` returns the originals by their new names, and the next time only what came since."""
    names = NameMap()
    assert names.name_of("loss") == "loss"
    assert not names.has_new
    assert names.take_new() == {}
    at = names.name_of("acc@1")
    assert at == mapped("acc@1")
    assert names.has_new
    assert names.take_new() == {at: "acc@1"}
    assert not names.has_new
    assert names.name_of("acc@1") == at
    assert names.take_new() == {}
    percent = names.name_of("acc%")
    assert names.take_new() == {percent: "acc%"}


def test_a_map_can_be_pickled() -> None:
    """A copy knows what was told already and what was not."""
    names = NameMap()
    told = names.name_of("told@")
    names.take_new()
    untold = names.name_of("untold@")
    copy = pickle.loads(pickle.dumps(names))  # noqa: S301  # made in this test
    assert copy.take_new() == {untold: "untold@"}
    assert copy.name_of("told@") == told
    assert not copy.has_new


def test_no_name_is_lost_between_threads() -> None:
    """What other threads map while one takes is in one of the takings, once."""
    names = NameMap()

    def work(worker: int) -> None:
        for count in range(500):
            names.name_of(f"{worker}@{count}")

    workers = [threading.Thread(target=work, args=(worker,)) for worker in range(4)]
    for worker in workers:
        worker.start()
    taken: list[str] = []
    while any(worker.is_alive() for worker in workers):
        taken += names.take_new().values()
    taken += names.take_new().values()
    assert sorted(taken) == sorted(f"{worker}@{count}" for worker in range(4) for count in range(500))
