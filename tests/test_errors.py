"""Every error is one line that says what, where, got, expected and what to do; vendors' errors are mapped once."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import toolkit.errors as errors
from toolkit.errors import (
    CheckFailed,
    EngineError,
    FileProblem,
    InvalidInput,
    InvalidModel,
    MissingDependency,
    NotApplicable,
    ToolkitError,
    UsageError,
    from_vendor,
    missing_dependency,
    one_line,
)


def test_a_message_answers_five_questions_in_order() -> None:
    error = InvalidInput("wrong dtype", where="m.onnx: input 'x'", got="int64", expected="float32", next_step="cast it")
    assert str(error) == "m.onnx: input 'x': wrong dtype; got int64; expected float32; cast it"
    assert (error.what, error.got, error.expected, error.next_step) == ("wrong dtype", "int64", "float32", "cast it")


def test_what_is_not_known_is_left_out() -> None:
    assert str(ToolkitError("no such thing")) == "no such thing"
    assert str(ToolkitError("no such thing", got=0)) == "no such thing; got 0"


def test_a_message_is_one_line_however_it_was_given() -> None:
    error = ToolkitError("two\nlines", got="a\r\n\tb", next_step="x" * 2000)
    assert re.search(r"[\r\n\t]", str(error)) is None
    assert len(str(error)) <= 600
    assert str(error).endswith("…")


def test_cutting() -> None:
    assert one_line("a  b\n c") == "a b c"
    assert one_line("abcdef", 4) == "abc…"
    assert one_line("abcd", 4) == "abcd"


def all_errors(cls: type[ToolkitError] = ToolkitError) -> list[type[ToolkitError]]:
    """``cls`` and what derives from it in toolkit/errors.py; other modules may have kinds of their own."""
    below = (child for child in cls.__subclasses__() if child.__module__ == errors.__name__)
    return [cls, *(found for child in below for found in all_errors(child))]


@pytest.mark.parametrize("cls", all_errors(), ids=lambda cls: cls.__name__)
def test_exit_codes_follow_the_tree(cls: type[ToolkitError]) -> None:
    assert cls.exit_code == (2 if issubclass(cls, UsageError) else 3 if issubclass(cls, CheckFailed) else 1)


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    drawn = re.findall(r"[├└]── (\w+)", errors.__doc__ or "")
    assert sorted(drawn) == sorted(cls.__name__ for cls in all_errors()[1:])


def test_a_missing_package_names_its_extra() -> None:
    assert str(MissingDependency.of("openvino", "openvino", "running models with OpenVINO")) == (
        "running models with OpenVINO needs the package openvino, which is not installed; "
        "pip install 'onnx-toolkit[openvino]'"
    )


def test_a_failed_import_of_an_extra_is_a_missing_dependency() -> None:
    found = missing_dependency(ModuleNotFoundError("No module named 'onnx_ir.passes'", name="onnx_ir.passes"))
    assert found is not None
    assert "onnx-toolkit[graph]" in str(found)
    assert missing_dependency(ModuleNotFoundError("No module named 'toolkit.nothing'", name="toolkit.nothing")) is None
    assert missing_dependency(ImportError("cannot import name 'x' from 'onnx'", name="onnx")) is None


class Fail(Exception):
    """Named like ONNX Runtime's; the table matches by name."""


class NoSuchFile(Exception):
    pass


class InvalidProtobuf(Exception):
    pass


class InvalidGraph(Exception):
    pass


class NotImplemented_(Exception):
    pass


NotImplemented_.__name__ = "NotImplemented"

# Texts as the engines gave them; the paths are made up.
VENDOR = [
    (
        InvalidProtobuf(
            "[ONNXRuntimeError] : 7 : INVALID_PROTOBUF : Load model from m.onnx failed:Protobuf parsing failed."
        ),
        InvalidModel,
        "not a readable ONNX file",
    ),
    (
        NoSuchFile("[ONNXRuntimeError] : 3 : NO_SUCHFILE : Load model failed. File doesn't exist"),
        FileProblem,
        "missing",
    ),
    (
        Fail(
            "[ONNXRuntimeError] : 1 : FAIL : External data path validation failed for initializer: W. Error: "
            'tensorprotoutils.cc:619 ValidateExternalDataPathFromDir External data path does not exist: "w.bin"'
        ),
        FileProblem,
        "weights is missing",
    ),
    (
        RuntimeError("Invalid usage of method for externally stored data in file (w.bin, offset: 0)"),
        FileProblem,
        "weights",
    ),
    (
        NotImplemented_("[ONNXRuntimeError] : 9 : NOT_IMPLEMENTED : Could not find an implementation for Max(13) node"),
        NotApplicable,
        "no implementation for a node",
    ),
    (
        Fail("Fatal error: com.example.nobody:Frobnicate(-1) is not a registered function/op"),
        NotApplicable,
        "Frobnicate",
    ),
    (RuntimeError("OpenVINO does not support the following ONNX operations: a.B"), NotApplicable, "a.B"),
    (
        Fail(
            "[ONNXRuntimeError] : 1 : FAIL : Load model from m.onnx failed: "
            "void onnxruntime::model_load_utils::ValidateOpsetForDomain(const std::unordered_map<std::string, int>&) "
            "ONNX Runtime only *guarantees* support for models stamped with official released onnx opset versions."
        ),
        InvalidModel,
        "opset is newer",
    ),
    (Fail("Unsupported model IR version: 99, max supported IR version: 14"), InvalidModel, "IR version is newer"),
    (
        RuntimeError(
            "Exception from src/inference/src/cpp/core.cpp:84:\nCheck 'false' failed at src/x.cpp:151:\n"
            "FrontEnd API failed with OpConversionFailure:\nModel wasn't fully converted. "
            "Failed operations detailed log:\n"
            "-- Conv-16 with a message:\nThe input data tensor's rank has to be known (static)"
        ),
        NotApplicable,
        "got Model wasn't fully converted. -- Conv-16 with a message: The input data tensor's rank has to be known "
        "(static); toolkit optimize MODEL -o NEW.onnx --dim NAME=SIZE",
    ),
    (RuntimeError("std::bad_alloc"), EngineError, "out of memory"),
    (RuntimeError("CUDA failure 2: out of memory ; GPU=0"), EngineError, "out of memory"),
    (MemoryError(), EngineError, "out of memory"),
    (
        InvalidGraph("[ONNXRuntimeError] : 10 : INVALID_GRAPH : This is an invalid model. Type Error"),
        InvalidModel,
        "not valid",
    ),
    (Fail("something else"), EngineError, "failed while opening on cpu"),
    (KeyError(), EngineError, "got KeyError"),
]


@pytest.mark.parametrize(("raised", "expected", "text"), VENDOR, ids=lambda value: str(value)[:40])
def test_vendor_errors(raised: Exception, expected: type[ToolkitError], text: str) -> None:
    found = from_vendor(raised, "m.onnx", doing="opening on cpu")
    assert type(found) is expected
    assert text in str(found)
    assert str(found).startswith("m.onnx: ")
    assert "onnxruntime::" not in str(found)
    assert "ONNXRuntimeError" not in str(found)
    assert not re.search(r"\.cc:\d", str(found))


def test_our_own_errors_pass_through() -> None:
    own = FileProblem("missing", where=Path("m.onnx"))
    assert from_vendor(own, "elsewhere", doing="opening") is own
