from __future__ import annotations

import io
import json
import re
import sys
from typing import TYPE_CHECKING, Any

import jax.numpy
import matplotlib as mpl
import mlflow
import numpy as np
import pytest
import torch
from PIL import Image, UnidentifiedImageError

import mantik
from mantik.exceptions import InvalidValueError, MissingExtraError
from mantik.testing import Status
from mantik.training.pictures import log_figure, log_images

mpl.use("Agg")

from matplotlib.figure import Figure

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mantik.testing import FaultProxy, Platform, ReadBack

FINISH_SECONDS = 30.0
NAME = re.compile(r"images/(?P<key>[^+]+)\+step\+(?P<step>-?\d+)\+timestamp\+\d+\+[0-9a-f-]+(?P<end>.*)")
SHAPE = (5, 6)
GRAY = np.arange(30, dtype=np.uint8).reshape(SHAPE)
COLOR = np.arange(90, dtype=np.uint8).reshape(*SHAPE, 3)

KINDS: list[tuple[object, object]] = [
    (GRAY, GRAY),
    (GRAY[:, :, None], GRAY),
    (COLOR, COLOR),
    (np.dstack([COLOR, GRAY]), np.dstack([COLOR, GRAY])),
    (GRAY > 11, (GRAY > 11) * np.uint8(255)),
    (GRAY.astype(np.int64), GRAY),
    (GRAY / 255, GRAY),
    ((GRAY / 255).astype(np.float16), GRAY),
    (np.moveaxis(COLOR, -1, 0), COLOR),
    (torch.tensor(COLOR).permute(2, 0, 1), COLOR),
    (torch.tensor(COLOR), COLOR),
    (torch.tensor(GRAY)[None] / 255, GRAY),
    ((torch.tensor(GRAY) / 255).to(torch.float64).requires_grad_(), GRAY),
    (torch.tensor([[0.0, 1.0]]).to(torch.bfloat16), [[0, 255]]),
    (jax.numpy.asarray(COLOR), COLOR),
    (jax.numpy.asarray([[0.0, 1.0]], dtype="bfloat16"), [[0, 255]]),
    (Image.fromarray(COLOR), COLOR),
    (mlflow.Image(COLOR), COLOR),
    (Image.fromarray(GRAY.astype(np.uint16) * 256), np.round(GRAY / 29 * 255)),
    (Image.new("CMYK", (1, 1), (255, 0, 0, 0)), [[[0, 255, 255]]]),
]
STRETCHED = [
    ([[-1.0, 0.0, 1.0]], [[0, 128, 255]]),
    ([[0.0, 127.5, 255.0]], [[0, 128, 255]]),
    ([[-1, 0, 9]], [[0, 26, 255]]),
    ([[0, 65535]], [[0, 255]]),
    ([[float("nan"), 0.5, 1.0]], [[0, 128, 255]]),
    ([[float("nan"), float("inf"), float("-inf"), 0.5]], [[0, 255, 0, 128]]),
    ([[float("nan"), float("inf"), 0.0, 4.0]], [[0, 255, 0, 255]]),
    ([[float("nan")]], [[0]]),
    ([[7.0, 7.0]], [[255, 255]]),
    ([[-7.0, -7.0]], [[0, 0]]),
    ([[-1.7e308, 1.7e308]], [[0, 255]]),
]


@pytest.fixture
def run_id(tracked: FaultProxy) -> Iterator[str]:
    """Return the id of an active run."""
    with mlflow.start_run() as run:
        yield run.info.run_id


@pytest.fixture
def client(tracked: FaultProxy) -> mlflow.MlflowClient:
    """Return a client of the platform."""
    return mlflow.MlflowClient()


@pytest.fixture
def held(mantik_platform: Platform) -> ReadBack:
    """Return a reader of what the platform holds."""
    return mantik_platform.read_back


@pytest.fixture
def nobody() -> mlflow.MlflowClient:
    """Return a client of a server that is not there: whoever logs with it fails."""
    return mlflow.MlflowClient("http://127.0.0.1:9")


def figure() -> Figure:
    """Draw a figure of 120 x 80 pixels."""
    drawn = Figure(figsize=(1.2, 0.8), dpi=100)
    drawn.subplots().plot([1, 2, 3])
    return drawn


def arrived(held: ReadBack, run_id: str) -> list[tuple[str, int, str]]:
    """Deliver, and return key, step and ending of each file among the run's images."""
    assert mantik.flush(FINISH_SECONDS)
    found = [NAME.fullmatch(path) for path in held.artifacts(run_id, "images")]
    return sorted((match["key"], int(match["step"]), match["end"]) for match in found if match)


def stored(held: ReadBack, run_id: str, end: str = ".png") -> list[Image.Image]:
    """Deliver, and return the images of the run in the order of their keys."""
    assert mantik.flush(FINISH_SECONDS)
    paths = [path for path in held.artifacts(run_id, "images") if path.endswith(end)]
    return [Image.open(io.BytesIO(held.download(run_id, path))) for path in paths]


def test_one_image_has_the_key_and_several_have_numbers(
    client: mlflow.MlflowClient, run_id: str, held: ReadBack
) -> None:
    """Each image is whole and small in the folder that MLflow shows, and the run says that it has some."""
    log_images(client, run_id, "val/one", GRAY, step=3)
    log_images(client, run_id, "val/list of one", [GRAY])
    log_images(client, run_id, "val/several", (COLOR, COLOR), step=-1)
    small = "+compressed.webp"
    assert arrived(held, run_id) == [
        ("val~list of one", 0, small),
        ("val~list of one", 0, ".png"),
        ("val~one", 3, small),
        ("val~one", 3, ".png"),
        ("val~several~00", -1, small),
        ("val~several~00", -1, ".png"),
        ("val~several~01", -1, small),
        ("val~several~01", -1, ".png"),
    ]
    assert held.run(run_id).tags["mlflow.loggedImages"] == "True"


def test_images_of_all_kinds_arrive(client: mlflow.MlflowClient, run_id: str, held: ReadBack) -> None:
    """Arrays, tensors and images are the same pixels on the platform."""
    for number, (image, _) in enumerate(KINDS):
        log_images(client, run_id, f"{number:02d}", image)
    pictures = stored(held, run_id)
    assert len(pictures) == len(KINDS)
    for picture, (image, expected) in zip(pictures, KINDS, strict=True):
        assert np.array_equal(np.asarray(picture), np.asarray(expected)), image


def test_no_value_is_an_error(client: mlflow.MlflowClient, run_id: str, held: ReadBack) -> None:
    """Values outside of the range are stretched, the lowest to black and the highest to white; NaN is black."""
    for number, (values, _) in enumerate(STRETCHED):
        log_images(client, run_id, f"{number:02d}", np.array(values))
    assert [np.asarray(picture).tolist() for picture in stored(held, run_id)] == [levels for _, levels in STRETCHED]


def test_a_file_is_shown_as_it_was_held(
    client: mlflow.MlflowClient, run_id: str, held: ReadBack, tmp_path: Path
) -> None:
    """A photograph that a camera turned is stored upright, as PNG."""
    photograph = Image.new("RGB", (20, 10), "navy")
    turned = photograph.getexif()
    turned[0x0112] = 6
    photograph.save(tmp_path / "photograph.jpg", exif=turned)
    log_images(client, run_id, "image", tmp_path / "photograph.jpg")
    (picture,) = stored(held, run_id)
    assert (picture.format, picture.size) == ("PNG", (10, 20))


def test_a_figure_is_an_image(client: mlflow.MlflowClient, run_id: str, held: ReadBack) -> None:
    """A figure of matplotlib and its axes are drawn."""
    drawn = figure()
    log_images(client, run_id, "image", [drawn, drawn.axes[0]])
    assert [picture.size for picture in stored(held, run_id)] == [(120, 80), (120, 80)]


def test_the_small_version_is_as_large_as_mlflow_shows_it(
    client: mlflow.MlflowClient, run_id: str, held: ReadBack
) -> None:
    """Its longer side has 256 pixels, whatever the image's has."""
    log_images(client, run_id, "image", [Image.new("P", size) for size in [(8, 4), (1024, 512), (1, 3000), (3000, 1)]])
    assert [picture.size for picture in stored(held, run_id, ".webp")] == [(256, 128), (256, 128), (1, 256), (256, 1)]


def test_an_array_with_four_axes_is_a_list(client: mlflow.MlflowClient, run_id: str, held: ReadBack) -> None:
    """A batch of a data loader can be logged as it is, and so can what an iterator yields."""
    log_images(client, run_id, "batch", torch.rand(3, 3, 5, 5))
    log_images(client, run_id, "iterator", iter([GRAY, GRAY]))
    keys = {key for key, _, _ in arrived(held, run_id)}
    assert keys == {"batch~00", "batch~01", "batch~02", "iterator~00", "iterator~01"}


def test_no_images_are_no_error(client: mlflow.MlflowClient, run_id: str, held: ReadBack) -> None:
    """Where a model made no mistakes, a list of its mistakes is empty."""
    log_images(client, run_id, "mistakes", [], captions=[])
    assert arrived(held, run_id) == []
    assert "mlflow.loggedImages" not in held.run(run_id).tags


def test_captions_are_a_table_beside_the_images(client: mlflow.MlflowClient, run_id: str, held: ReadBack) -> None:
    """The table shows the images that were logged, each with its caption."""
    log_images(client, run_id, "val/pets", [GRAY, COLOR], step=12, captions=["cat", 3])
    log_images(client, run_id, "pet", GRAY, captions="dog")
    assert mantik.flush(FINISH_SECONDS)
    tables = ["captions/images/pet.json", "captions/images/val/pets/step-00000012.json"]
    assert held.artifacts(run_id, "captions") == tables
    table = json.loads(held.download(run_id, tables[1]))
    assert table["columns"] == ["image", "caption"]
    assert [caption for _, caption in table["data"]] == ["cat", "3"]
    for number, (cell, _) in enumerate(table["data"]):
        assert cell["type"] == "image"
        assert f"val~pets~{number:02d}+step+12+" in cell["filepath"]
        assert {cell["filepath"], cell["compressed_filepath"]} <= set(held.artifacts(run_id))
    assert [entry["path"] for entry in json.loads(held.run(run_id).tags["mlflow.loggedArtifacts"])] == tables[::-1]


def test_any_key_is_held(client: mlflow.MlflowClient, run_id: str, held: ReadBack) -> None:
    """Keys that a path cannot have are mapped, each to another one, and everything arrives."""
    keys = ["größe: 日本", "a#b", "../up", "/absolute", "a//b", "", "x" * 300, "日本" * 100, "a/" * 120 + "b", "\ud800"]
    for key in keys:
        log_images(client, run_id, key, GRAY, captions="one")
        log_images(client, run_id, f"{key}'", GRAY)
        log_figure(client, run_id, key, figure(), step=1)
    assert len({key for key, _, _ in arrived(held, run_id)}) == 2 * len(keys)
    assert mantik.receipt().refused == 0
    assert len(held.artifacts(run_id)) == 6 * len(keys)


def test_figures_are_files(client: mlflow.MlflowClient, run_id: str, held: ReadBack) -> None:
    """Figures of matplotlib, their axes and images are PNG, with a step in a folder of the key."""
    drawn = figure()
    log_figure(client, run_id, "curve", drawn, step=2)
    log_figure(client, run_id, "curve", drawn.axes[0])
    log_figure(client, run_id, "val/matrix", Image.fromarray(COLOR))
    assert mantik.flush(FINISH_SECONDS)
    expected = ["figures/curve.png", "figures/curve/step-00000002.png", "figures/val/matrix.png"]
    assert held.artifacts(run_id) == expected
    sizes = [Image.open(io.BytesIO(held.download(run_id, path))).size for path in expected]
    assert sizes == [(120, 80), (120, 80), (6, 5)]


def test_a_figure_that_is_a_page_is_a_page(client: mlflow.MlflowClient, run_id: str, held: ReadBack) -> None:
    """What writes itself as HTML, as figures of plotly do, is stored as HTML."""

    class Page:
        def write_html(self, file: str, *, include_plotlyjs: str) -> None:
            with open(file, "w", encoding="utf-8") as written:  # noqa: PTH123  # as plotly does
                written.write(f"<html>{include_plotlyjs}</html>")

    log_figure(client, run_id, "plot", Page(), step=1)
    assert mantik.flush(FINISH_SECONDS)
    assert held.download(run_id, "figures/plot/step-00000001.html") == b"<html>cdn</html>"


@pytest.mark.parametrize(
    ("images", "text"),
    [
        (None, "'bad' is given as NoneType. Give one thing to log, or a list of them."),
        ({"a": GRAY}, "'bad' is given as dict."),
        ([GRAY, 5], "image 1 of 'bad' is of the type int. Expected is the path of an image file"),
        ([GRAY, None], "image 1 of 'bad' is of the type NoneType."),
        ([[0, 1], [1, 0]], "image 0 of 'bad' is of the type list."),
        ([np.zeros((5, 7, 2))], "image 0 of 'bad' has the shape (5, 7, 2). Expected is height x width, or that with 1"),
        ([np.zeros(5)], "has the shape (5,)."),
        ([np.zeros((0, 5))], "has the shape (0, 5)."),
        ([np.zeros((2, 3, 4, 4))], "has the shape (2, 3, 4, 4)."),
        ([torch.zeros(2, 5, 5)], "has the shape (2, 5, 5)."),
        (np.zeros((3, 3), dtype=complex), "image 0 of 'bad' has values of the type complex128. Expected are numbers."),
        (np.array([["a"]]), "has values of the type <U1."),
        ("nowhere.png", "image 0 of 'bad' cannot be read as an image: [Errno 2] No such file"),
    ],
)
def test_what_is_no_image_is_said_before_anything_is_logged(
    nobody: mlflow.MlflowClient, images: object, text: str
) -> None:
    """The error names the image, what it is and what is expected."""
    with pytest.raises(InvalidValueError) as raised:
        log_images(nobody, "0" * 32, "bad", images)
    assert text in str(raised.value)
    assert raised.value.name == "bad"


@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\n" + bytes(40)])
def test_a_damaged_file_is_said_at_once(nobody: mlflow.MlflowClient, tmp_path: Path, content: bytes) -> None:
    """A file that holds no image is named in the error."""
    (tmp_path / "broken.png").write_bytes(content)
    with pytest.raises(InvalidValueError, match=r"broken\.png|cannot be read as an image") as raised:
        log_images(nobody, "0" * 32, "bad", tmp_path / "broken.png")
    assert isinstance(raised.value.__cause__, (UnidentifiedImageError, OSError, SyntaxError))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"captions": ["one"]}, "captions has 1 elements, but 2 are to be logged as 'bad'. Give one for each."),
        ({"captions": "one"}, "captions has 1 elements, but 2 are to be logged as 'bad'."),
        ({"step": 1.5}, "The step of 'bad' is 1.5, which is no whole number."),
        ({"step": "3"}, "The step of 'bad' is '3'"),
    ],
)
def test_what_does_not_fit_is_said_at_once(nobody: mlflow.MlflowClient, options: dict[str, Any], text: str) -> None:
    """So are captions of another number, and steps that are none."""
    with pytest.raises(InvalidValueError, match=re.escape(text)):
        log_images(nobody, "0" * 32, "bad", [GRAY, GRAY], **options)


@pytest.mark.parametrize("thing", [None, "curve.png", GRAY, torch.zeros(3, 3), 5])
def test_what_is_no_figure_is_said_at_once(nobody: mlflow.MlflowClient, thing: object) -> None:
    """The error says what it is, what is expected and what takes the rest."""
    with pytest.raises(InvalidValueError, match=rf"type {type(thing).__name__}\. Expected .* belong into log_image"):
        log_figure(nobody, "0" * 32, "bad", thing)


def test_a_key_that_is_no_text_is_said_at_once(nobody: mlflow.MlflowClient) -> None:
    """Images logged without a key have it in the images' place."""
    with pytest.raises(InvalidValueError, match="The key is 5, which is no text"):
        log_images(nobody, "0" * 32, 5, GRAY)  # type: ignore[arg-type]


def test_without_pillow_the_error_says_how_to_install_it(
    nobody: mlflow.MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The packages for media are optional."""
    monkeypatch.setattr(sys, "path", [])
    for name in [name for name in sys.modules if name.partition(".")[0] == "PIL"]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(MissingExtraError, match=r"'pillow'.* pip install 'mantik\[media\]'"):
        log_images(nobody, "0" * 32, "image", GRAY)


def test_images_wait_for_no_answer(
    client: mlflow.MlflowClient, run_id: str, held: ReadBack, tracked: FaultProxy
) -> None:
    """Where a run's artifacts are is asked once; after that, images and figures ask the server nothing."""
    log_images(client, run_id, "image", GRAY, captions="first")
    assert mantik.flush(FINISH_SECONDS)
    with tracked.fault(Status(503), method="GET") as asked:
        log_images(client, run_id, "image", [GRAY, GRAY], step=1, captions=["one", "two"])
        log_figure(client, run_id, "figure", figure())
        assert asked.hits == 0
    assert len(arrived(held, run_id)) == 6
