"""Records of every kind, for tests that take any of them."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from mantik.delivery.calls import CALLS
from mantik.delivery.creation import OPERATION_TAG
from mantik.delivery.ids import Identities, Identity, new_id, operation_of
from mantik.delivery.records import Artifact, Batch, Call, Create, Removal, RunUpdate, Spans

TEXT = st.text(max_size=20) | st.sampled_from(["", "a\nb", "\u2028", "\x00", "\ud800", '"\\', "épée", "🜁"])
LONG = st.integers(-(2**63), 2**63 - 1)
VALUES = (
    st.floats()
    | st.integers(-(2**70), 2**70)
    | st.booleans()
    | st.sampled_from([5e-324, 1.7976931348623157e308, -0.0, float("nan"), float("inf"), float("-inf")])
)
POINTS = st.tuples(TEXT, VALUES, LONG, LONG).map(list) | st.tuples(
    TEXT, VALUES, LONG, LONG, st.none() | TEXT, st.none() | TEXT, st.none() | TEXT
).map(list)
PAIRS = st.tuples(TEXT, TEXT).map(list)
HEX = st.text("0123456789abcdef", min_size=32, max_size=32)
BODIES = st.dictionaries(
    TEXT,
    st.recursive(
        st.none() | st.booleans() | LONG | TEXT | st.floats(allow_nan=False, allow_infinity=False),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
        max_leaves=6,
    ),
    max_size=4,
)

BATCHES = st.builds(Batch, TEXT, st.lists(POINTS, max_size=4), st.lists(PAIRS, max_size=3), st.lists(PAIRS, max_size=3))
UPDATES = st.builds(RunUpdate, TEXT, st.none() | TEXT, st.none() | LONG, st.none() | TEXT)
CREATES = st.one_of(
    st.builds(Create, st.just(kind), HEX.map(f"{prefix}local-".__add__), st.none() | st.floats(0, 2e9), BODIES)
    for kind, prefix in (("run", ""), ("model", "m-"), ("experiment", ""))
)
CALLED = st.builds(Call, st.sampled_from(sorted(CALLS)), TEXT, BODIES)
SPANS = st.builds(Spans, st.integers(0, 10**18).map(str), st.binary(max_size=30).map(lambda raw: raw.hex()))
ARTIFACTS = st.builds(Artifact, TEXT, st.integers(0, 10**8 - 1).map("{:08d}".format), st.integers(0, 2**50))
REMOVALS = st.builds(Removal, TEXT)

POINTS_LANE = st.one_of(BATCHES, UPDATES, CREATES, CALLED, SPANS)
UPLOADS_LANE = st.one_of(ARTIFACTS, REMOVALS, CALLED)
ANY = st.one_of(POINTS_LANE, UPLOADS_LANE)


def begun(ids: Identities, kind: str = "run", asked_at: float | None = None) -> Create:
    """Begin a run or model without the server."""
    local_id = new_id(kind)  # type: ignore[arg-type]
    root = f"mlflow-artifacts:/0/{'models/' if kind == 'model' else ''}{local_id}/artifacts"
    body: dict[str, Any] = {
        "experiment_id": "0",
        "tags": [{"key": OPERATION_TAG, "value": operation_of(local_id)}],
        **({"start_time": 1_700_000_000_000, "run_name": "begun"} if kind == "run" else {"name": "model"}),
    }
    ids.note(Identity(local_id, kind, root, body))  # type: ignore[arg-type]
    return Create(kind, local_id, asked_at, body)  # type: ignore[arg-type]
