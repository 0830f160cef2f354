"""Requests and answers of the Open Inference Protocol as bytes."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput, InferResult

from benchmarks.parts.server_process import array_of
from relcompile.serving.protocol import NAMES, ProtocolError, Request, Wanted, parts, read_request, write_answer

X = np.array([[1.0, 2.0, 3.0], [-1.0, 0.5, 2.0]], np.float32)


def one_input(**changes: Any) -> dict[str, Any]:
    entry = {"name": "x", "datatype": "FP32", "shape": [2, 3], "data": X.tolist(), **changes}
    return {"inputs": [{key: value for key, value in entry.items() if value is not None}]}


def body_of(request: Any) -> bytes:
    return json.dumps(request).encode()


def read(body: bytes, length: str | None = None) -> Request:
    return read_request(*parts(body, length))


@pytest.mark.parametrize("dtype", NAMES)
@pytest.mark.parametrize("binary", [True, False])
def test_what_nvidias_client_writes_is_read(dtype: str, binary: bool) -> None:
    if dtype == "float16" and not binary:
        pytest.skip("the protocol has no float16 in JSON")
    array = np.array([[1, 0, 1], [0, 0, 1]]).astype(dtype)
    tensor = InferInput("x", [2, 3], NAMES[dtype])
    tensor.set_data_from_numpy(array, binary_data=binary)
    outputs = [InferRequestedOutput("r", binary_data=False), InferRequestedOutput("p", binary_data=True)]
    body, length = InferenceServerClient.generate_request_body([tensor], outputs, request_id="7")

    request = read(body, None if length is None else str(length))

    assert request.inputs["x"].dtype == array.dtype
    np.testing.assert_array_equal(request.inputs["x"], array)
    assert (request.id, request.outputs) == ("7", (Wanted("r", False), Wanted("p", True)))


@pytest.mark.parametrize("binary", [True, False])
def test_nvidias_client_reads_what_is_written(binary: bool) -> None:
    found = {"p": X, "n": np.array([3, -1]), "b": np.array([True, False])}
    request = Request("7", {}, None, binary)
    body, length = write_answer("m", request, request.wanted(list(found)), found)
    result = InferResult.from_response_body(body, header_length=length)
    assert result.get_response()["id"] == "7"
    for name, array in found.items():
        told = array_of(result, name)
        assert told.dtype == array.dtype
        np.testing.assert_array_equal(told, array)


def test_flat_and_nested_numbers_are_the_same() -> None:
    flat = read(body_of(one_input(data=X.reshape(-1).tolist())))
    np.testing.assert_array_equal(flat.inputs["x"], X)


WRONG: dict[str, tuple[Any, str]] = {
    "no JSON": (b"{", "is not JSON"),
    "a photograph": (b"\xff\xd8\xff\xe0", "tensors as bytes follow the JSON text.*Header-Content-Length says"),
    "nested too deep": (b"[" * 100_000, "is not JSON"),
    "a list": ([], "not a JSON object"),
    "no inputs": ({}, "inputs is missing"),
    "inputs of numbers": ({"inputs": [1]}, "an entry of inputs is not a JSON object"),
    "too many inputs": ({"inputs": [{}] * 2000}, "2000 entries"),
    "one input twice": ({"inputs": one_input()["inputs"] * 2}, "given twice"),
    "no name": (one_input(name=None), "name is missing"),
    "no type": (one_input(datatype=None), "datatype is missing"),
    "a type of text": (one_input(datatype="BYTES"), "is none of BOOL"),
    "no shape": (one_input(shape=None), "shape is missing"),
    "a shape that is negative": (one_input(shape=[-1, 3]), "shape is not"),
    "a shape of truth values": (one_input(shape=[True, 3]), "shape is not"),
    "a shape of many axes": (one_input(shape=[1] * 40), "shape is not"),
    "a shape that does not fit": (one_input(shape=[2, 2]), "cannot reshape"),
    "a shape beyond memory": (one_input(shape=[2**31 - 1] * 4), "cannot reshape"),
    "no data": (one_input(data=None), "data is missing"),
    "ragged data": (one_input(data=[[1, 2, 3], [1]]), "inhomogeneous"),
    "data of text": (one_input(data=["a"] * 6), "data is of <U1, but float32 wants numbers"),
    "data of truth values": (one_input(data=[True] * 6), "data is of bool"),
    "fractions for integers": (one_input(datatype="INT64"), "data is of float64, but int64 wants whole numbers"),
    "integers that do not fit": (one_input(datatype="UINT8", data=[300] * 6), "uint8 lacks"),
    "negative ones for unsigned": (one_input(datatype="UINT8", data=[-1] * 6), "uint8 lacks"),
    "huge integers": (one_input(data=[10**400] * 6), "data is of object"),
    "numbers beyond float32": (
        one_input(data=[1e300] * 6),
        "float32 lacks; NaN and infinity can be sent as binary data",
    ),
    "float16 as JSON": (one_input(datatype="FP16"), "no form in JSON"),
    "shared memory": (one_input(parameters={"shared_memory_region": "a"}), "'shared_memory_region' is not supported"),
    "bytes that are not there": (one_input(data=None, parameters={"binary_data_size": 24}), "0 are left"),
    "bytes of another size": (one_input(data=None, parameters={"binary_data_size": 23}), "has 24 bytes"),
    "bytes and data": (one_input(parameters={"binary_data_size": 24}), "data is given, too"),
    "parameters of text": (one_input(parameters="a"), "parameters is not"),
    "a text for a truth value": ({**one_input(), "parameters": {"binary_data_output": "yes"}}, "type bool"),
    "outputs of text": ({**one_input(), "outputs": "all"}, "outputs is missing, or"),
    "top classes": (
        {**one_input(), "outputs": [{"name": "p", "parameters": {"classification": 3}}]},
        "'classification' is not supported",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_no_request_is_refused(case: str) -> None:
    request, told = WRONG[case]
    with pytest.raises(ProtocolError, match=told):
        read(request if isinstance(request, bytes) else body_of(request))


@pytest.mark.parametrize("length", ["-1", "1.5", "", "x", "9999", "²", "9" * 5000])
def test_a_header_length_that_is_none_is_refused(length: str) -> None:
    with pytest.raises(ProtocolError, match="Content-Length"):
        read(body_of(one_input()), length)


def test_sizes_beside_a_0_that_numpy_cannot_count_are_refused() -> None:
    sizes = [0, 2**31 - 1, 2**31 - 1, 2**31 - 1]
    text = body_of(one_input(shape=sizes, data=None, parameters={"binary_data_size": 0}))
    with pytest.raises(ProtocolError, match="input x: array is too big"):
        read(text, str(len(text)))


def test_bytes_behind_the_last_input_and_truth_values_of_other_bytes_are_refused() -> None:
    text = body_of(one_input())
    with pytest.raises(ProtocolError, match="5 bytes follow"):
        read(text + b"12345", str(len(text)))
    text = body_of(one_input(datatype="BOOL", shape=[2], data=None, parameters={"binary_data_size": 2}))
    with pytest.raises(ProtocolError, match="a byte 0 or 1"):
        read(text + b"\x01\x02", str(len(text)))


def test_outputs_that_do_not_exist_or_have_no_form_in_json_are_refused() -> None:
    with pytest.raises(ProtocolError, match="no output q; there are p, r"):
        Request("", {}, (Wanted("q", True),), False).wanted(["p", "r"])
    for array in (np.array([np.nan], np.float32), np.array([1.0], np.float16)):
        with pytest.raises(ProtocolError, match="ask for binary_data"):
            write_answer("m", Request("", {}, None, False), [Wanted("p", False)], {"p": array})


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
_FIELDS = st.sampled_from(["name", "datatype", "shape", "data", "parameters"])


@settings(max_examples=200, deadline=None)
@given(_FIELDS, _JSON, st.binary(max_size=40), st.integers(0, 200))
def test_damaged_requests_end_in_one_kind_of_error(field: str, value: Any, tail: bytes, cut: int) -> None:
    good = one_input(data=None, parameters={"binary_data_size": 24})
    good["inputs"][0][field] = value
    text = body_of(good)
    for body, length in ((text + tail, str(len(text))), (text[:cut] + tail, str(cut)), (tail, None)):
        try:
            read(body, length)
        except ProtocolError as error:
            assert str(error)  # noqa: PT017
