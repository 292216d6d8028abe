"""Projects and their archives, sound ones and others, and the form that submits them."""

from __future__ import annotations

import io
import json
import stat
import zipfile
from typing import TYPE_CHECKING

import requests

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

CONFIG = "unicore-config.json"
FILES: dict[str, str] = {
    "MLproject": (
        "name: demo\n"
        "entry_points:\n"
        "  main:\n"
        "    parameters:\n"
        "      alpha: {type: float, default: 0.5}\n"
        "      label: {type: string, default: plain}\n"
        '    command: "python train.py --alpha {alpha} --label {label}"\n'
    ),
    CONFIG: json.dumps({"Resources": {"Queue": "batch"}, "Environment": {"Variables": {"LEVEL": "3"}}}),
    "train.py": "print('trained')\n",
    "data/table.csv": "a,b\n1,2\n",
}
FIELDS: dict[str, str] = {
    "entry_point": "main",
    "mlflow_parameters": '{"alpha": 0.1}',
    "unicore_user": "",
    "unicore_password": "",
    "unicore_project": "",
    "unicore_backend_config": CONFIG,
    "unicore_backend_config_path": CONFIG,
    "mlflow_tracking_uri": "https://elsewhere.example",
    "mlflow_tracking_token": "a-token-that-nobody-looks-at",
}
# MLflow without the packages that mlflow-skinny does without: it is there in half the time.
SKINNY = "import sys\nsys.modules.update(dict.fromkeys(['numpy', 'pandas', 'scipy']))\n"


def archive(files: Mapping[str, str | bytes] = FILES, *, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """Pack files as the client does."""
    return pack([(zipfile.ZipInfo(name), content) for name, content in files.items()], method=method)


def changed(**files: str | bytes | None) -> bytes:
    """Pack the sound project with other files; ``None`` leaves one out."""
    return archive({name: content for name, content in {**FILES, **files}.items() if content is not None})


def pack(entries: Iterable[tuple[zipfile.ZipInfo | str, str | bytes]], *, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """Pack entries just as they are."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for info, content in entries:
            file.writestr(info, content, compress_type=method)
    return buffer.getvalue()


def entry(name: str, mode: int = stat.S_IFREG | 0o644) -> zipfile.ZipInfo:
    """Describe an entry with this mode."""
    info = zipfile.ZipInfo(name)
    # As it is: the constructor would cut a name off at a zero.
    info.filename = name
    info.create_system = 3
    info.external_attr = mode << 16
    return info


def form(zipped: bytes | None = None, **fields: str | None) -> tuple[bytes, dict[str, str]]:
    """Return body and headers of the form; ``None`` leaves a field out, and an empty archive the file."""
    content = archive() if zipped is None else zipped
    sent = {name: value for name, value in {**FIELDS, **fields}.items() if value is not None}
    files = {"mlproject_zip": ("project.zip", content, "application/zip")} if content else {"other": ("x", b"", "")}
    prepared = requests.Request("POST", "http://localhost/", data=sent, files=files).prepare()
    assert isinstance(prepared.body, bytes)
    return prepared.body, {"Content-Type": prepared.headers["Content-Type"]}
