"""Records that no server takes: the rest arrives, and each is kept with the reason."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mantik.auth.bearer import BearerAuth
from mantik.auth.login import token_source
from mantik.auth.urls import platform_origin
from mantik.delivery.journal import JournalWriter
from mantik.delivery.owner import Owner
from mantik.delivery.records import Artifact, encode, encode_batch
from mantik.delivery.rest import MlflowApi, UnavailableError
from mantik.delivery.shipper import Shipper
from mantik.delivery.spool import Outgoing, identities_of
from mantik.settings import Settings
from mantik.testing import Status
from tests.forked import run_forked

from .training import mantik, spool_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mantik.delivery.spool import Lane
    from mantik.testing import FaultProxy, Platform

ATTEMPTS = 20
"""More than any request is tried before it is taken for refused."""


def quarantine_of(environment: dict[str, str]) -> dict[str, Any]:
    """Return what was refused, by what it was."""
    (folder,) = spool_of(environment)
    path = Path(environment["MANTIK_HOME"], "spool", folder, "quarantine", "records.jsonl")
    refusals = [json.loads(line) for line in path.read_text().splitlines()]
    found = {refusal["what"]: refusal for refusal in refusals}
    assert len(found) == len(refusals)
    return found


def test_poison_is_kept_with_its_reason_and_the_rest_arrives(
    mantik_platform: Platform, environment: dict[str, str], tmp_path: Path
) -> None:
    """Changed params, illegal keys and values of any size and kind cost themselves and nothing around them."""
    output = run_forked(
        """
        import math
        import mantik, mlflow
        from mantik.delivery.registry import outbox_for
        from mlflow.entities import Metric, Param, RunTag

        mantik.init_tracking()
        client = mlflow.MlflowClient()
        with mlflow.start_run() as run:
            run_id = run.info.run_id
            mlflow.log_params({f"param-{number}": number for number in range(300)})
            assert mantik.flush(60)
            mlflow.log_params({f"param-{number}": number + (number == 77) for number in range(300)})
            mlflow.log_metrics({"nan": math.nan, "inf": math.inf, "minus": -math.inf, "loss": 1.0}, step=3)
            mlflow.log_param("long", "x" * 5995 + "123456")
            mlflow.set_tag("long", "y" * 7996 + "12345")
            client.log_metric(run_id, "half", 1.0, step=2.5)
            client.log_metric(run_id, "unknown", 1.0, model_id="m-" + "0" * 32)
            twice = [Metric("twice", 1.0, 1, 1), Metric("twice", 2.0, 2, 1)]
            params = [Param("twice", "1"), Param("twice", "1"), Param("twice", "2")]
            client.log_batch(run_id, twice, params, [RunTag("twice", "1"), RunTag("twice", "2")])
            # MLflow's client refuses such a key in the call; another version of it may not.
            points = [[key, 0.5, 1000, step] for step in range(50) for key in ("sound", "a//b")[: 1 + (step == 20)]]
            outbox_for(mlflow.get_tracking_uri()).record_batch(run_id, points, [["a//b", "1"], ["sound", "1"]], [])
            mlflow.log_metric("last", 1.0)
        with mlflow.start_run() as many:
            mlflow.log_params({f"param-{number}": number for number in range(2_500)})
        print("RUN", run_id, many.info.run_id)
        """,
        environment,
        tmp_path,
    )
    held = mantik_platform.read_back
    poisoned, many = output.partition("RUN ")[2].split()[:2]
    assert held.run(many).params == {f"param-{number}": str(number) for number in range(2_500)}
    run = held.run(poisoned)
    assert run.status == "FINISHED"
    own = {"long": "x" * 5995 + "12345", "twice": "1", "sound": "1"}
    assert run.params == {f"param-{number}": str(number) for number in range(300)} | own
    assert run.tags["long"] == "y" * 7996 + "1234"
    assert run.tags["twice"] == "2"
    assert run.metrics["nan"] != run.metrics["nan"]  # that is NaN
    others = {key: value for key, value in run.metrics.items() if key not in {"nan", "inf", "minus"}}
    assert others == {"loss": 1.0, "half": 1.0, "unknown": 1.0, "twice": 2.0, "sound": 0.5, "last": 1.0}
    assert [point.step for point in held.metric_history(run.run_id, "half")] == [2]
    assert [point.value for point in held.metric_history(run.run_id, "twice")] == [1.0, 2.0]
    assert len(held.metric_history(run.run_id, "sound")) == 50
    refused = quarantine_of(environment)
    reasons = {what: refusal["reason"] for what, refusal in refused.items()}
    assert set(reasons) == {
        "param 'param-77'", "param 'twice'", "param 'long'", "tag 'long'", "metric 'a//b'", "param 'a//b'",
    }  # fmt: skip
    assert "Changing param values is not allowed" in reasons["param 'param-77'"]
    assert refused["param 'param-77'"]["content"][3] == [["param-77", "78"]]
    assert "a//b" in reasons["metric 'a//b'"]
    assert "longer than the platform keeps" in reasons["param 'long'"]
    assert refused["param 'long'"]["content"][3] == [["long", "x" * 5995 + "123456"]]
    assert refused["tag 'long'"]["content"][4] == [["long", "y" * 7996 + "12345"]]
    assert "6 records" in output
    assert "param 'param-77': Changing param values is not allowed" in output
    (folder,) = spool_of(environment)
    shown = mantik("sync", "--dry-run", environment=environment)
    assert "6 refused" in shown.stdout
    again = mantik("sync", environment=environment)
    assert again.returncode == 0, again.stdout + again.stderr
    assert f"{folder}/quarantine" in again.stdout
    assert len(quarantine_of(environment)) == 6


@pytest.fixture
def outgoing(
    mantik_platform: Platform, proxy: FaultProxy, environment: dict[str, str], blank_environment: pytest.MonkeyPatch
) -> Iterator[tuple[Outgoing, MlflowApi, str, str]]:
    """Return a folder of the spool, a platform behind the proxy, and a run with its artifact URI."""
    del blank_environment
    settings = Settings.from_environment(environment)
    created = mantik_platform.read_back._call("POST", "runs/create", {"experiment_id": "0", "start_time": 1000})  # noqa: SLF001
    info = created["run"]["info"]
    folder = Outgoing.create(settings.spool, Owner.here(proxy.url, settings.username, None))
    api = MlflowApi(proxy.url, BearerAuth(platform_origin(proxy.url, allow_http=False), token_source(settings)))
    yield folder, api, info["run_id"], info["artifact_uri"]
    api.close()


def shipper_of(outgoing: Outgoing, lane: Lane, api: MlflowApi) -> Shipper:
    """Return what ships a lane."""
    return Shipper(outgoing, lane, api, identities_of(outgoing.path), tail="closed")


def attempts_of(shipper: Shipper) -> int:
    """Ship until all is done with, and return how often the server could not take it."""
    for failures in range(ATTEMPTS):
        try:
            while shipper.ship():
                pass
        except UnavailableError:
            continue
        return failures
    return ATTEMPTS


def test_a_file_on_which_the_server_always_fails_holds_up_nothing(
    outgoing: tuple[Outgoing, MlflowApi, str, str], mantik_platform: Platform, proxy: FaultProxy, tmp_path: Path
) -> None:
    """An upload that is answered with 500 for ever is given up after some attempts, and the file is kept."""
    folder, api, run_id, root = outgoing
    proxy.fault(Status(500), path=re.compile("cursed"))
    writer = JournalWriter(folder.uploads.journal)
    for name in ("before", "cursed", "after"):
        source = tmp_path / name
        source.write_text(name)
        writer.append(encode(Artifact(f"{root}/{name}", *folder.staging.take(source))))
    writer.close()
    shipper = shipper_of(folder, folder.uploads, api)
    assert 1 < attempts_of(shipper) < ATTEMPTS
    assert mantik_platform.read_back.artifacts(run_id) == ["after", "before"]
    (refusal,) = folder.quarantine.refusals()
    assert "the platform fails on it (HTTP 500)" in refusal.reason
    assert refusal.run_id == run_id
    assert (folder.quarantine.folder / refusal.content[2]).read_text() == "cursed"
    assert shipper.refused == {run_id: 1}
    assert shipper.sent[run_id].artifacts == 2


class PointsOf:
    """A server that fails on every request in which there is one certain metric."""

    def __init__(self, api: MlflowApi, key: str) -> None:
        self._api = api
        self._key = key

    def log_batch(self, run_id: str, metrics: list[Any], params: list[Any], tags: list[Any]) -> None:
        """Fail, or send."""
        if any(item[0] == self._key for item in metrics):
            raise UnavailableError("HTTP 500", status=500)
        self._api.log_batch(run_id, metrics, params, tags)

    def __getattr__(self, name: str) -> object:
        """Leave everything else to the real one."""
        return getattr(self._api, name)


def test_a_point_on_which_the_server_always_fails_is_found(
    outgoing: tuple[Outgoing, MlflowApi, str, str], mantik_platform: Platform
) -> None:
    """Of a thousand points, the one for whose sake every request fails is found and kept; all others arrive once."""
    folder, api, run_id, _ = outgoing
    writer = JournalWriter(folder.points.journal)
    for step in range(1000):
        writer.append(encode_batch(run_id, [["cursed" if step == 333 else "sound", step / 3, 1000, step]], [], []))
    writer.close()
    shipper = shipper_of(folder, folder.points, PointsOf(api, "cursed"))  # type: ignore[arg-type]
    assert 1 < attempts_of(shipper) < ATTEMPTS
    history = mantik_platform.read_back.metric_history(run_id, "sound")
    assert [point.step for point in history] == [step for step in range(1000) if step != 333]
    (refusal,) = folder.quarantine.refusals()
    assert refusal.what == "metric 'cursed'"
    assert shipper.sent[run_id].metrics == 999


def test_a_server_that_fails_on_everything_refuses_nothing(
    outgoing: tuple[Outgoing, MlflowApi, str, str], mantik_platform: Platform, proxy: FaultProxy
) -> None:
    """However often an unwell server answers with 500, nothing counts as refused, and all arrives when it is well."""
    folder, api, run_id, _ = outgoing
    writer = JournalWriter(folder.points.journal)
    writer.append(encode_batch(run_id, [["loss", 0.5, 1000, 1]], [], []))
    writer.close()
    shipper = shipper_of(folder, folder.points, api)
    switch = proxy.fault(Status(500))
    assert attempts_of(shipper) == ATTEMPTS
    switch.clear()
    assert attempts_of(shipper) == 0
    assert folder.quarantine.count() == 0
    assert [point.value for point in mantik_platform.read_back.metric_history(run_id, "loss")] == [0.5]
