"""What an estimator says of itself: params that are texts whatever they are, tags, and a page of its own."""

# ruff: noqa: ANN401  # params of any kind

from __future__ import annotations

import logging
import re
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.base import BaseEstimator
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from mantik.integrations.sklearn.parameters import html_of, parameters_of, tags_of


class Holder(BaseEstimator):
    """Has one param."""

    def __init__(self, held: Any = None) -> None:
        self.held = held


class Unwilling(BaseEstimator):
    """Fails at whatever it is asked."""

    def __init__(self, depth: int = 3, *more: Any) -> None:
        self.depth = depth
        self.more = more

    def get_params(self, deep: bool = True) -> dict[str, Any]:  # noqa: FBT001, FBT002  # as scikit-learn has it
        """Refuse."""
        raise RuntimeError(f"ask somebody else ({deep})")

    def __repr__(self, *_: Any, **__: Any) -> str:
        """Refuse."""
        raise RuntimeError("unprintable")


def test_names_and_texts_are_those_of_mlflow() -> None:
    """Params of a pipeline have the names and the texts that MLflow's autologging gives them."""
    pipeline = make_pipeline(StandardScaler(), LogisticRegression(C=0.5, class_weight={0: 1.0, 1: 2.0}))
    expected = {name: str(value) for name, value in pipeline.get_params(deep=True).items()}
    found = parameters_of(pipeline, deep=True)
    assert found == expected
    assert found["logisticregression__C"] == "0.5"
    assert found["logisticregression"] == "LogisticRegression(C=0.5, class_weight={0: 1.0, 1: 2.0})"
    assert list(parameters_of(pipeline, deep=False)) == ["memory", "steps", "transform_input", "verbose"]


def test_a_search_keeps_what_it_varies_to_itself() -> None:
    """Of a search its own params are recorded, and none of the estimator that it varies."""
    search = GridSearchCV(LogisticRegression(), {"C": [1, 2]}, cv=3)
    found = parameters_of(search, deep=True)
    assert (found["param_grid"], found["cv"], found["estimator"]) == ("{'C': [1, 2]}", "3", "LogisticRegression()")
    assert not [name for name in found if "__" in name]
    inside = parameters_of(make_pipeline(search), deep=True)
    assert inside["gridsearchcv__cv"] == "3"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        pytest.param(None, "None", id="none"),
        pytest.param(np.float64(0.1), "0.1", id="number of numpy"),
        pytest.param(np.zeros((1000, 1000)), "ndarray(shape=(1000, 1000), dtype=float64)", id="array"),
        pytest.param(sp.csr_matrix((3, 4)), "csr_matrix(shape=(3, 4), dtype=float64)", id="sparse"),
        pytest.param(np.random.RandomState(0), "RandomState(MT19937)", id="random state"),
        pytest.param(parameters_of, "mantik.integrations.sklearn.parameters.parameters_of", id="function"),
        pytest.param(lambda x: x, "tests.integrations.sklearn.test_parameters.<lambda>", id="function without a name"),
        pytest.param(object(), "<object object>", id="address"),
        pytest.param(PCA(2, whiten=True), "PCA(n_components=2, whiten=True)", id="estimator"),
        pytest.param(Unwilling(), "<tests.integrations.sklearn.test_parameters.Unwilling object>", id="unprintable"),
        pytest.param(list(range(100_000)), "list of 100000 items", id="long list"),
    ],
)
def test_values(value: Any, text: str) -> None:
    """A value of any kind is a text that is the same in every process."""
    assert parameters_of(Holder(value), deep=False) == {"held": text}


def test_long_values_are_cut() -> None:
    """Of a text no more is recorded than MLflow holds."""
    (text,) = parameters_of(Holder("x" * 100_000), deep=True).values()
    assert (len(text), text[-4:]) == (6000, "x...")


def test_estimators_that_do_not_answer() -> None:
    """One that cannot be asked is looked at, and one with such a part tells its own params."""
    assert parameters_of(Unwilling(5), deep=True) == {"depth": "5", "more": "()"}
    found = parameters_of(make_pipeline(Unwilling(), LogisticRegression()), deep=True)
    assert found["verbose"] == "False"
    assert tags_of(Unwilling()) == {
        "estimator_name": "Unwilling",
        "estimator_class": "tests.integrations.sklearn.test_parameters.Unwilling",
    }


def test_very_many_params(caplog: pytest.LogCaptureFixture) -> None:
    """Of some thousand params the outer ones are recorded, which is said."""
    union = FeatureUnion([(f"t{number}", LogisticRegression()) for number in range(300)])
    with caplog.at_level(logging.WARNING):
        found = parameters_of(union, deep=True)
    assert len(found) == 2000
    assert {f"t{number}" for number in range(300)} <= set(found)
    assert "FeatureUnion has 4505 params" in caplog.text


class Loads(HTMLParser):
    """Collects what a browser would load, and the title."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.urls: list[Any] = re.findall(r"url\(['\"]?([^)]*)|@import ([^;]*)|fetch\(([^)]*)", page)
        self.seen: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note a tag."""
        self.seen.append(tag)
        loaded = {"src", "srcset", "data", "poster"} | ({"href"} if tag == "link" else set())
        self.urls += [str(value) for name, value in attrs if name in loaded]


def test_the_page() -> None:
    """The page is a whole one with title and encoding, shows umlauts, and loads nothing from elsewhere."""
    page = html_of(make_pipeline(FunctionTransformer(kw_args={"ü": "größe"}), LogisticRegression()))
    assert page.startswith("<!DOCTYPE html>")
    assert "<title>Pipeline</title>" in page
    assert page.index('<meta charset="utf-8">') < 100
    assert "größe" in page
    assert "FunctionTransformer" in page
    loads = Loads(page)
    assert loads.seen[:4] == ["html", "head", "meta", "title"]
    assert [url for url in loads.urls if not "".join(url).startswith("data:")] == []


def test_the_page_of_what_cannot_be_drawn() -> None:
    """An estimator whose own code fails at it is told by its params."""
    page = html_of(Unwilling(7))
    assert "<title>Unwilling</title>" in page
    assert "depth = 7" in page
