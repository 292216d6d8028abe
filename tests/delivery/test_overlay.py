"""What waits, as a training reads it back."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mantik.delivery.journal import Position
from mantik.delivery.overlay import Overlay, Writes, writes_in
from mantik.delivery.records import Batch, Call, RunUpdate

RUN = "run-1"
FINAL = Call("finalize", "m-1", {"status": "LOGGED_MODEL_READY"})


def at(number: int) -> Position:
    """Return the n-th position of a journal."""
    return Position(1, number)


def test_the_latest_point_the_first_param_and_the_last_tag_are_read() -> None:
    """Of what waits a reader sees what the server will say once it has arrived."""
    overlay = Overlay()
    overlay.add_batch(at(1), RUN, [["a", 1.0, 5, 0], ["a", 2.0, 4, 1]], [["p", "1"]], [["t", "1"]])
    overlay.add_batch(at(2), RUN, [["a", 3.0, 9, 0], ["b", 4.0, 1, 0]], [["p", "2"]], [["t", "2"]])
    writes = overlay.writes(RUN)
    assert writes is not None
    assert {key: item[1] for key, item in writes.metrics.items()} == {"a": 2.0, "b": 4.0}
    assert (writes.params, writes.tags) == ({"p": "1"}, {"t": "2"})
    overlay.add("points", at(3), RunUpdate(RUN, "FINISHED", 17, None))
    overlay.add("points", at(4), RunUpdate(RUN, None, None, "name"))
    writes = overlay.writes(RUN)
    assert writes is not None
    assert (writes.status, writes.end_time, writes.run_name) == ("FINISHED", 17, "name")
    assert overlay.writes("run-2") is None


def test_what_was_read_is_the_readers_own() -> None:
    """A reader that changes what it was given changes nothing for others."""
    overlay = Overlay()
    overlay.add_batch(at(1), RUN, [], [["p", "1"]], [])
    overlay.add("points", at(2), Call("inputs", RUN, {"datasets": []}))
    mine = overlay.writes(RUN)
    assert mine is not None
    mine.params["p"] = "changed"
    mine.inputs.clear()
    again = overlay.writes(RUN)
    assert again is not None
    assert (again.params, again.inputs) == ({"p": "1"}, [{"datasets": []}])


def test_points_of_a_model_are_read_of_run_and_model() -> None:
    """A point with a model's id is there for both, and goes away for both."""
    overlay = Overlay()
    overlay.add_batch(at(1), RUN, [["a", 1.0, 1, 1, "m-1", "train", "abc"], ["b", 2.0, 1, 1]], [], [])
    model = overlay.writes("m-1")
    assert model is not None
    assert list(model.metrics) == ["a"]
    overlay.forget("points", at(1))
    assert overlay.writes("m-1") is overlay.writes(RUN) is None


def test_requests_about_models_and_runs_are_read() -> None:
    """Inputs, outputs, params, tags and the status of a model are seen before they arrive."""
    overlay = Overlay()
    overlay.add("points", at(1), Call("model-params", "m-1", {"params": [{"key": "p", "value": "1"}, {"key": "q"}]}))
    overlay.add("points", at(2), Call("model-tags", "m-1", {"tags": [{"key": "t", "value": "2"}]}))
    overlay.add("uploads", at(1), FINAL)
    overlay.add("points", at(3), Call("outputs", RUN, {"models": [1]}))
    model, run = overlay.writes("m-1"), overlay.writes(RUN)
    assert model is not None
    assert run is not None
    assert (model.params, model.tags, model.status) == ({"p": "1", "q": ""}, {"t": "2"}, "LOGGED_MODEL_READY")
    assert run.outputs == [{"models": [1]}]


@pytest.mark.parametrize("first", ["points", "uploads"])
def test_an_entry_goes_when_both_lanes_have_delivered(first: str) -> None:
    """What one lane has delivered stays until the other has delivered its part, in either order."""
    overlay = Overlay()
    overlay.add("points", at(5), Call("model-tags", "m-1", {"tags": []}))
    overlay.add("uploads", at(2), FINAL)
    second = "uploads" if first == "points" else "points"
    overlay.forget(first, at(9))  # type: ignore[arg-type]
    assert overlay.writes("m-1") is not None
    overlay.forget(second, at(1))  # type: ignore[arg-type]
    assert overlay.writes("m-1") is not None
    overlay.forget(second, at(9))  # type: ignore[arg-type]
    assert overlay.writes("m-1") is None


def test_an_entry_stays_while_a_later_record_waits() -> None:
    """Delivery up to an earlier position, or of another segment, forgets nothing that came later."""
    overlay = Overlay()
    overlay.add_batch(Position(1, 900), RUN, [["a", 1.0, 1, 1]], [], [])
    overlay.add_batch(Position(2, 30), RUN, [["a", 2.0, 1, 2]], [], [])
    overlay.forget("points", Position(1, 5000))
    assert overlay.writes(RUN) is not None
    overlay.forget("points", Position(2, 30))
    assert overlay.writes(RUN) is None


def test_memory_is_bounded_by_what_is_open() -> None:
    """Thousands of ended runs that wait are not all kept in memory; those that are open are."""
    overlay = Overlay()
    for number in range(5000):
        run_id = f"run-{number}"
        overlay.add_batch(at(2 * number), run_id, [["a", 1.0, 1, 1]], [["p", "1"]], [["t", "1"]])
        if number % 10:
            overlay.add("points", at(2 * number + 1), RunUpdate(run_id, "FINISHED", 1, None))
    kept = [number for number in range(5000) if overlay.writes(f"run-{number}") is not None]
    assert len(kept) <= 1000
    assert {number for number in range(5000) if not number % 10} <= set(kept)
    overlay.forget("points", at(10_000))
    assert not any(overlay.writes(f"run-{number}") for number in range(5000))


def test_requests_that_nobody_reads_take_no_memory() -> None:
    """A hundred thousand traces that wait cost no memory: nothing reads what is recorded of them."""
    overlay = Overlay()
    overlay.add("points", at(0), Call("trace", "tr-0", {}))
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for number in range(1, 100_000):
        overlay.add("points", at(number), Call("trace", f"tr-{number}", {"a": number}))
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert after - before < 100_000
    assert overlay.writes("tr-1") is None


def test_what_was_read_from_a_journal_can_be_put_back() -> None:
    """Restored writes are read and added to; what is in memory already is newer and stays."""
    overlay = Overlay()
    restored = writes_in([Batch(RUN, [["a", 1.0, 1, 1]], [["p", "1"]], [])], RUN)
    assert restored is not None
    overlay.restore(RUN, restored)
    overlay.add_batch(at(1), RUN, [["a", 2.0, 1, 2]], [], [])
    overlay.restore(RUN, Writes())
    writes = overlay.writes(RUN)
    assert writes is not None
    assert writes.metrics["a"][1] == 2.0
    assert writes.params == {"p": "1"}


BATCHES = st.lists(
    st.builds(
        Batch,
        st.sampled_from(["run-1", "run-2"]),
        st.lists(
            st.tuples(st.sampled_from("ab"), st.floats(allow_nan=False), st.integers(0, 3), st.integers(0, 3)).map(list)
        ),
        st.lists(st.tuples(st.sampled_from("pq"), st.sampled_from("xyz")).map(list), max_size=3),
        st.lists(st.tuples(st.sampled_from("tu"), st.sampled_from("xyz")).map(list), max_size=3),
    ),
    max_size=6,
)


@given(BATCHES)
def test_a_journal_says_what_memory_says(batches: list[Batch]) -> None:
    """What is gathered from records is what was taken in while they were recorded."""
    overlay = Overlay()
    for number, batch in enumerate(batches):
        overlay.add_batch(at(number), batch.run_id, batch.metrics, batch.params, batch.tags)
    for run_id in ("run-1", "run-2", "run-3"):
        assert writes_in(batches, run_id) == overlay.writes(run_id)
