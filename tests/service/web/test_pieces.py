"""Files that come in pieces."""

from __future__ import annotations

import json
import socket

import httpx2
import numpy as np
import pytest
import scipy.sparse
from service.waiting import until
from service.web.wire import MATRIX, as_npz, put_matrix

NPZ = {"Content-Type": "application/x-npz"}


def begin(http: httpx2.Client, length: int | None = None) -> str:
    headers = {} if length is None else {"Upload-Length": str(length)}
    answer = http.post("/v1/uploads", headers=headers)
    assert answer.status_code == 201, answer.text
    assert answer.headers["upload-offset"] == "0"
    found: str = answer.json()["id"]
    return found


def piece(
    http: httpx2.Client, upload: str, content: bytes, offset: object, **headers: str
) -> httpx2.Response:
    given = {"Upload-Offset": str(offset), **headers}
    return http.patch(f"/v1/uploads/{upload}", content=content, headers=given)


def finish(http: httpx2.Client, upload: str) -> httpx2.Response:
    return http.post(f"/v1/matrices?upload={upload}", headers=NPZ)


def test_pieces_make_the_same_matrix(real: httpx2.Client) -> None:
    content = as_npz()
    upload = begin(real, len(content))

    for start in range(0, len(content), 100):
        early = finish(real, upload)
        assert early.status_code == 409, early.text
        answer = piece(real, upload, content[start : start + 100], start)
        assert answer.status_code == 204, answer.text
    assert answer.headers["upload-offset"] == str(len(content))
    made = finish(real, upload)

    assert made.json()["id"] == put_matrix(real, MATRIX)
    assert real.head(f"/v1/uploads/{upload}").status_code == 404
    again = finish(real, upload)  # of a client that did not hear of it
    assert (again.status_code, again.json()["id"]) == (200, made.json()["id"])


def test_what_is_no_matrix_may_be_given_up(real: httpx2.Client) -> None:
    upload = begin(real)
    piece(real, upload, b"no zip", 0)

    assert finish(real, upload).status_code == 422
    assert real.head(f"/v1/uploads/{upload}").headers["upload-offset"] == "6"
    assert real.delete(f"/v1/uploads/{upload}").status_code == 204
    assert finish(real, upload).status_code == 404


def body_of(data: np.ndarray, datatype: str = "FP64") -> tuple[bytes, dict[str, str]]:
    """A tensor body of values, and the header that says where its JSON ends."""
    entry = {
        "name": "data", "shape": [*data.shape], "datatype": datatype,
        "parameters": {"binary_data_size": data.nbytes},
    }  # fmt: skip
    text = json.dumps({"inputs": [entry]}).encode()
    header = {"Inference-Header-Content-Length": str(len(text))}
    return text + data.tobytes(), header


def test_values_in_pieces(real: httpx2.Client) -> None:
    """The same matrix as of a body that came whole; then the upload is gone."""
    key, data = put_matrix(real, MATRIX), np.arange(MATRIX.nnz) + 0.5
    path = f"/v1/matrices/{key}/values"
    content, header = body_of(data)
    upload = begin(real, len(content))
    assert piece(real, upload, content[:99], 0).status_code == 204
    early = real.put(f"{path}?upload={upload}", headers=header)
    assert piece(real, upload, content[99:], 99).status_code == 204
    headless = real.put(f"{path}?upload={upload}")

    made = real.put(f"{path}?upload={upload}", headers=header)

    assert (early.status_code, headless.status_code) == (409, 400)
    assert "Inference-Header-Content-Length" in headless.json()["error"]
    assert made.status_code == 201, made.text
    whole = real.put(path, content=content, headers=header)
    assert (whole.status_code, whole.json()["id"]) == (200, made.json()["id"])
    assert real.head(f"/v1/uploads/{upload}").status_code == 404
    again = real.put(f"{path}?upload={upload}", headers=header)
    assert (again.status_code, again.json()["id"]) == (200, made.json()["id"])


@pytest.mark.parametrize(
    ("data", "datatype", "says"),
    [
        (np.ones(3), "FP64", "data is float64 of shape [3]"),
        (np.ones((MATRIX.nnz, 2), "c16"), "C128", "data is complex128 of shape"),
        (np.ones(MATRIX.nnz), "BYTES", "unusable type 'BYTES'"),
        (np.ones(MATRIX.nnz), "FP32", "says"),
    ],
)
def test_bad_values_in_pieces(
    real: httpx2.Client, data: np.ndarray, datatype: str, says: str
) -> None:
    key = put_matrix(real, MATRIX)
    content, header = body_of(data, datatype)
    upload = begin(real)
    assert piece(real, upload, content, 0).status_code == 204

    answer = real.put(f"/v1/matrices/{key}/values?upload={upload}", headers=header)

    assert answer.status_code in (400, 422), answer.text
    assert says in answer.json()["error"]
    assert real.delete(f"/v1/uploads/{upload}").status_code == 204


@pytest.mark.parametrize(
    ("offset", "headers", "code"),
    [
        ("3", {}, 409),
        ("-1", {}, 400),
        ("one", {}, 400),
        ("0", {"Content-Encoding": "gzip"}, 415),
    ],
)
def test_bad_pieces(
    real: httpx2.Client, offset: str, headers: dict[str, str], code: int
) -> None:
    upload = begin(real, 4)

    answer = piece(real, upload, b"ab", offset, **headers)

    assert answer.status_code == code, answer.text
    assert real.head(f"/v1/uploads/{upload}").headers["upload-offset"] == "0"
    assert real.patch(f"/v1/uploads/{upload}", content=b"a").status_code == 400
    assert piece(real, upload, b"too long", 0).status_code == 413
    real.delete(f"/v1/uploads/{upload}")


def test_bounds(real: httpx2.Client) -> None:
    for length, code in (("x", 400), (str(10**17), 413)):
        answer = real.post("/v1/uploads", headers={"Upload-Length": length})
        assert answer.status_code == code, answer.text
    assert real.head("/v1/uploads/u-0").status_code == 404
    assert piece(real, "u-0", b"x", 0).status_code == 404


async def test_a_cut_connection(real: httpx2.Client) -> None:
    """What came before stays, and the rest makes it whole."""
    content = as_npz(scipy.sparse.random_array((900, 900), density=0.3).tocsr())
    assert len(content) > 2_000_000
    upload = begin(real, len(content))
    host, port = real.base_url.host, real.base_url.port
    assert port is not None
    head = (
        f"PATCH /v1/uploads/{upload} HTTP/1.1\r\nHost: a\r\nUpload-Offset: 0\r\n"
        f"Content-Length: {len(content)}\r\n\r\n"
    )
    with socket.create_connection((host, port), timeout=10) as raw:
        raw.sendall(head.encode() + content[:1_500_000])

    def there() -> int:
        answer = real.head(f"/v1/uploads/{upload}")
        return int(answer.headers["upload-offset"])

    await until(lambda: there() >= 1_000_000)

    def rest() -> bool:
        offset = there()
        return piece(real, upload, content[offset:], offset).status_code == 204

    await until(rest)
    assert finish(real, upload).status_code == 201
