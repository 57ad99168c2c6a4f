"""Data: every layout gives the same batches, streams, splits, and refuses what is wrong in one line."""

from __future__ import annotations

import gzip
import io
import pickle
import struct
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.data import Batch, Dataset, from_iterable, open_data, write_npz
from toolkit.errors import FileProblem, InvalidData, InvalidInput, ToolkitError, UsageError
from toolkit.preprocess import InputSteps, Layout, Preprocessing, Reshape, Resize, Scale
from toolkit.tensors import TensorSpec, parse_spec

X = np.arange(70, dtype=np.float32).reshape(10, 7)
LABELS = np.arange(10) % 3


def specs(*texts: str) -> tuple[TensorSpec, ...]:
    return tuple(map(parse_spec, texts))


def gathered(data: Dataset) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
    batches = list(data)
    names = [name for name, values in batches[0].feeds.items() if values.ndim]
    feeds = {name: np.concatenate([b.feeds[name][: b.count] for b in batches]) for name in names}
    labels = [b.labels for b in batches if b.labels is not None]
    return feeds, np.concatenate(labels) if labels else None


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


def npz(path: Path, compressed: bool = False, **arrays: Any) -> Path:
    (np.savez_compressed if compressed else np.savez)(path, **arrays)
    return path


# ---------------------------------------------------------------- layouts


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("order", ["C", "F"])
def test_npz_gives_its_rows_whatever_its_form(tmp_path: Path, compressed: bool, order: str) -> None:
    path = npz(tmp_path / "d.npz", compressed, x=np.asarray(X, order=order), labels=LABELS)  # type: ignore[call-overload]
    data = open_data(path, inputs=specs("x:float32[n,7]"), batch_size=4)
    assert (data.count, data.has_labels, data.name, data.state) == (10, True, str(path), {})
    assert [(b.count, b.start) for b in data] == [(4, 0), (4, 4), (2, 8)]
    feeds, labels = gathered(data)
    np.testing.assert_array_equal(feeds["x"], X)
    np.testing.assert_array_equal(labels, LABELS)
    assert len(data.sha256 or "") == 64


def test_npy_folder_with_one_file_per_column(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X)
    np.save(tmp_path / "labels.npy", LABELS)
    np.save(tmp_path / "rate.npy", np.array(16000))
    feeds, labels = gathered(open_data(tmp_path, batch_size=10))
    np.testing.assert_array_equal(feeds["x"], X)
    np.testing.assert_array_equal(labels, LABELS)
    assert next(iter(open_data(tmp_path))).feeds["rate"] == 16000


def test_npy_folder_with_one_file_per_sample_of_its_own_length(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    for index, length in enumerate((3, 5, 4)):
        np.save(tmp_path / "x" / f"{index}.npy", np.full((length, 2), index, np.float32))
    inputs = specs("x:float32[n,t,2]")
    assert [b.feeds["x"].shape for b in open_data(tmp_path, inputs=inputs, batch_size=1)] == [
        (1, 3, 2),
        (1, 5, 2),
        (1, 4, 2),
    ]
    with pytest.raises(InvalidData, match="'x': samples of one batch have different shapes; use preprocessing"):
        list(open_data(tmp_path, inputs=inputs))


def test_a_lone_npy_goes_to_the_only_input(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", X)
    feeds, labels = gathered(open_data(tmp_path / "a.npy", inputs=specs("pixels:float32[n,7]")))
    assert labels is None
    np.testing.assert_array_equal(feeds["pixels"], X)
    with pytest.raises(InvalidData, match="the model needs several arrays; got one array without a name, for a, b"):
        open_data(tmp_path / "a.npy", inputs=specs("a:float32[n,7]", "b:float32[n,7]"))


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx_files_alone_and_by_folder(tmp_path: Path, suffix: str) -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 4, 3), dtype=np.uint8)
    pack: Callable[[bytes], bytes] = gzip.compress if suffix else bytes
    (tmp_path / f"t10k-images-idx3-ubyte{suffix}").write_bytes(pack(idx(images)))
    (tmp_path / f"t10k-labels-idx1-ubyte{suffix}").write_bytes(pack(idx(np.arange(5))))
    recipe = Preprocessing((InputSteps("x", (Layout("NHW", "NCHW"), Scale(1 / 255)), "image"),))
    for path in (tmp_path, tmp_path / f"t10k-images-idx3-ubyte{suffix}"):
        data = open_data(path, inputs=specs("x:float32[n,1,4,3]"), preprocessing=recipe, batch_size=2)
        feeds, labels = gathered(data)
        np.testing.assert_allclose(feeds["x"][:, 0], images / 255, rtol=1e-6)
        assert labels is not None and labels.tolist() == [0, 1, 2, 3, 4]
    (tmp_path / f"train-images-idx3-ubyte{suffix}").write_bytes(pack(idx(images)))
    with pytest.raises(InvalidData, match="several sets of images are in this folder; expected one of: .*train-images"):
        open_data(tmp_path)


def save_image(path: Path, value: int, size: tuple[int, int] = (6, 4)) -> None:
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    path.parent.mkdir(parents=True, exist_ok=True)
    image.new("RGB", size, (value, 0, 0)).save(path)


RECIPE = Preprocessing((InputSteps("x", (Resize(height=4, width=4), Layout("NHWC", "NCHW")), "image"),))


def test_image_folders_take_their_class_from_sub_folders(tmp_path: Path) -> None:
    for index, name in enumerate(["cat", "dog"]):
        save_image(tmp_path / name / "a.png", 10 * index)
        save_image(tmp_path / name / "b.png", 10 * index, (9, 9))
    feeds, labels = gathered(open_data(tmp_path, preprocessing=RECIPE))
    assert feeds["x"].shape == (4, 3, 4, 4)
    assert labels is not None and labels.tolist() == [0, 0, 1, 1]
    assert open_data(tmp_path).class_names == ("cat", "dog")
    assert open_data(tmp_path, labels=("dog", "cow", "cat")).class_names == ()
    _, labels = gathered(open_data(tmp_path, preprocessing=RECIPE, labels=("dog", "cow", "cat")))
    assert labels is not None and labels.tolist() == [2, 2, 0, 0]
    with pytest.raises(InvalidData, match=r"cat: no class of the model; expected 'cap' \(did you mean that\?\)"):
        open_data(tmp_path, labels=("cap", "dog"))
    save_image(tmp_path / "stray.png", 0)
    with pytest.raises(InvalidData, match="in no class folder while others are; got stray.png"):
        open_data(tmp_path)


def test_image_folders_take_their_class_from_numbers(tmp_path: Path) -> None:
    for name in ("0007_tench.png", "0003-shark.png"):
        save_image(tmp_path / "numbered" / name, 1)
    for name in ("12", "4"):
        save_image(tmp_path / "folders" / name / "a.png", 1)
    save_image(tmp_path / "photos" / "000000000139.png", 1)
    assert [
        b.labels.tolist() for b in open_data(tmp_path / "numbered", preprocessing=RECIPE) if b.labels is not None
    ] == [[3, 7]]
    assert [
        b.labels.tolist() for b in open_data(tmp_path / "folders", preprocessing=RECIPE) if b.labels is not None
    ] == [[12, 4]]
    assert not open_data(tmp_path / "photos", preprocessing=RECIPE).has_labels


def test_iterables_of_every_kind() -> None:
    kinds: list[Any] = [
        [{"x": X[:6], "labels": LABELS[:6]}, {"x": X[6:], "labels": LABELS[6:]}],
        [(X[:6], LABELS[:6]), (X[6:], LABELS[6:])],
        [({"x": X}, LABELS)],
        lambda: ((X[i : i + 3], LABELS[i : i + 3]) for i in range(0, 10, 3)),
    ]
    for items in kinds:
        data = from_iterable(items, inputs=specs("x:float32[n,7]"), batch_size=4)
        for _ in range(2):
            feeds, labels = gathered(data)
            np.testing.assert_array_equal(feeds["x"], X)
            np.testing.assert_array_equal(labels, LABELS)
        assert data.count is None and data.sha256 is None


def test_an_iterator_can_be_read_once() -> None:
    data = from_iterable(iter([X, X]), inputs=specs("x:float32[n,7]"))
    assert sum(b.count for b in data) == 20
    with pytest.raises(InvalidData, match="an iterator can be read only once; pass a function"):
        list(data)


def test_torch_tensors_are_arrays_too() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    feeds, _ = gathered(
        from_iterable([(torch.from_numpy(X), torch.from_numpy(LABELS))], inputs=specs("x:float32[n,7]"))
    )
    np.testing.assert_array_equal(feeds["x"], X)


def test_a_function_in_a_file_gives_batches(tmp_path: Path) -> None:
    file = tmp_path / "batches.py"
    file.write_text("import numpy as np\ndef some(): yield {'x': np.ones((3, 2), np.float32)}\n")
    assert [b.count for b in open_data(f"{file}:some")] == [3]
    with pytest.raises(UsageError, match=r"no such function; got sum; expected 'some'"):
        open_data(f"{file}:sum")


# ---------------------------------------------------------------- selection


def test_take_limit_and_batched(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "d.npz", {"x": X})
    assert open_data(path, limit=3).count == 3
    assert [b.count for b in open_data(path, limit=7, batch_size=4)] == [4, 3]
    np.testing.assert_array_equal(gathered(open_data(path, batch_size=4).take(3, 8).take(1, 3))[0]["x"], X[4:6])
    assert [b.count for b in open_data(path, batch_size=4).batched(6)] == [6, 4]
    assert open_data(path).take(8).count == 2
    with pytest.raises(InvalidData, match="no sample is left; got 10 before the selection"):
        list(open_data(path).take(10))


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 60), st.floats(0.1, 0.9), st.integers(0, 99), st.integers(1, 9))
def test_a_split_shares_nothing_and_loses_nothing(count: int, fraction: float, seed: int, size: int) -> None:
    class Counted:
        name, count, columns, constants, state, class_names = "n", 0, ("x",), {}, {}, ()  # type: ignore[var-annotated]

        def blocks(self, size: int, columns: object) -> Iterator[Any]:
            for start in range(0, self.count, size):
                yield {"x": np.arange(start, min(start + size, self.count))}

        def sha256(self) -> None: ...

    source = Counted()
    source.count = count  # type: ignore[misc]
    data = Dataset(source, batch_size=size)
    if not 0 < round(count * fraction) < count:
        with pytest.raises(InvalidData, match="one side of the split is empty"):
            data.split(fraction, seed)
        return
    first, second = data.split(fraction, seed)
    a, b = gathered(first)[0]["x"].tolist(), gathered(second)[0]["x"].tolist()
    assert (first.count, second.count) == (len(a), len(b)) == (round(count * fraction), count - round(count * fraction))
    assert sorted(a + b) == list(range(count))
    assert gathered(data.split(fraction, seed)[0])[0]["x"].tolist() == a


def test_a_split_keeps_sequences_whole(tmp_path: Path) -> None:
    sequence = np.repeat(np.array(["a", "b", "c", "d"]), [3, 1, 2, 4])
    path = write_npz(tmp_path / "d.npz", {"x": X, "sequence": sequence})
    first, second = open_data(path, batch_size=3).split(0.5, seed=1)
    sides = [{str(i) for b in side if b.sequences is not None for i in b.sequences} for side in (first, second)]
    assert len(sides[0]) == len(sides[1]) == 2 and not sides[0] & sides[1]
    with pytest.raises(InvalidData, match=r"cannot split what has no known length; take\(start, stop\)"):
        from_iterable([X]).split(0.5)


# ---------------------------------------------------------------- models


def test_a_fixed_batch_is_filled_with_the_last_sample(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "d.npz", {"x": X, "labels": LABELS})
    batches = list(open_data(path, inputs=specs("x:float32[4,7]"), batch_size=32))
    assert [(b.count, b.feeds["x"].shape) for b in batches] == [(4, (4, 7)), (4, (4, 7)), (2, (4, 7))]
    np.testing.assert_array_equal(batches[-1].feeds["x"][2:], X[[9, 9]])
    assert batches[-1].labels is not None and len(batches[-1].labels) == 2


def test_state_constants_and_arrays_that_nobody_needs(tmp_path: Path) -> None:
    path = write_npz(
        tmp_path / "d.npz", {"x": X, "sr": np.array(16000), "speaker": LABELS}, state={"h": "h_out"}
    )  # fmt: skip
    data = open_data(path, inputs=specs("x:float32[1,7]", "sr:int64[]", "h:float32[1,2]"))
    assert data.state == {"h": "h_out"}
    batch = next(iter(data))
    assert sorted(batch.feeds) == ["sr", "x"] and batch.count == 1 and batch.feeds["sr"].shape == ()


def test_inputs_that_preprocessing_makes_and_the_model_lacks_are_left_out(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "d.npz", {"raw": X, "y": X})
    recipe = Preprocessing((InputSteps("x", (Scale(2),), "raw"), InputSteps("mask", (Scale(0),), "raw")))
    feeds, _ = gathered(open_data(path, inputs=specs("x:float32[n,7]", "y:float32[n,7]"), preprocessing=recipe))
    assert sorted(feeds) == ["x", "y"]
    np.testing.assert_array_equal(feeds["x"], 2 * X)


def test_writing_is_deterministic_and_keeps_state(tmp_path: Path) -> None:
    first, second = (
        write_npz(tmp_path / name, {"x": X.T.copy().T, "labels": LABELS}, state={"a": "b"}).read_bytes()
        for name in "pq"
    )
    assert first == second
    with pytest.raises(InvalidData, match="different numbers of samples; got x: 10, labels: 9"):
        write_npz(tmp_path / "bad.npz", {"x": X, "labels": LABELS[:9]})
    assert not (tmp_path / "bad.npz").exists()


@pytest.mark.parametrize("compressed", [False, True])
def test_reading_takes_memory_for_a_batch_not_for_the_file(tmp_path: Path, compressed: bool) -> None:
    rows = np.zeros((4000, 2500), np.float32)  # 40 MB; read by batches of 80 kB
    path = npz(tmp_path / "big.npz", compressed, x=rows)
    tracemalloc.start()
    assert sum(b.count for b in open_data(path, batch_size=8)) == 4000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < rows.nbytes / 10


# ---------------------------------------------------------------- what is wrong


def damaged(kind: str, folder: Path) -> Path:
    """A file or folder with one thing wrong."""
    path = folder / "d.npz"
    good = {"x": X, "labels": LABELS}
    match kind:
        case "objects":
            np.savez(path, x=np.array([{"a": 1}, None], dtype=object))
        case "lengths":
            npz(path, x=X, labels=LABELS[:4])
        case "empty":
            npz(path, x=X[:0])
        case "no arrays":
            np.savez(path)
        case "names":
            npz(path, pixels=X)
        case "dtype":
            npz(path, x=X.astype(np.float64))
        case "shape":
            npz(path, x=X[:, :5])
        case "state":
            npz(path, **good, state_pairs=np.array(["h"]))
        case "truncated":
            path.write_bytes(npz(path, **good).read_bytes()[:-200])
        case "flipped":
            content = bytearray(
                npz(path, compressed=True, x=np.random.default_rng(0).random((99, 7), np.float32)).read_bytes()
            )
            content[len(content) // 2] ^= 0xFF
            path.write_bytes(content)
        case "header lies":
            header = io.BytesIO()
            np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (10**12, 7)})
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("x.npy", header.getvalue() + b"\0" * 64)
        case "no array inside":
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("evil.pkl", pickle.dumps([1]))
        case "pickle":
            path.write_bytes(pickle.dumps(good))
        case "text":
            path.write_text("not a zip")
        case "zero bytes":
            path.touch()
        case "missing":
            pass
        case "suffix":
            path = folder / "d.csv"
            path.write_text("1,2")
        case "empty folder":
            path = folder / "nothing"
            path.mkdir()
        case "idx":
            path = folder / "t10k-images-idx3-ubyte"
            path.write_bytes(idx(np.zeros((5, 4, 3)))[:-7])
        case "idx magic":
            path = folder / "t10k-images-idx3-ubyte"
            path.write_bytes(b"hello world")
        case "gzip":
            path = folder / "t10k-images-idx3-ubyte.gz"
            path.write_bytes(gzip.compress(idx(np.zeros((50, 40, 30))))[:60])
        case "image":
            save_image(folder / "a.png", 3)
            (folder / "a.png").write_bytes((folder / "a.png").read_bytes()[:50])
            path = folder
        case "npy":
            np.save(folder / "x.npy", X)
            (folder / "x.npy").write_bytes((folder / "x.npy").read_bytes()[:-9])
            path = folder
        case "npy objects":
            np.save(folder / "x.npy", np.array([None]), allow_pickle=True)
            path = folder
        case "twice":
            np.save(folder / "x.npy", X)
            (folder / "x").mkdir()
            np.save(folder / "x" / "0.npy", X)
            path = folder
    return path


@pytest.mark.parametrize(
    ("kind", "error", "message"),
    [
        ("objects", InvalidData, "array 'x': object arrays are not read, since that needs pickle"),
        ("lengths", InvalidData, "arrays hold different numbers of samples; got x: 10, labels: 4"),
        ("empty", InvalidData, "holds no samples"),
        ("no arrays", ToolkitError, "holds no samples"),
        ("names", InvalidData, "there is no array 'x', which the model needs; got arrays ['pixels']"),
        ("dtype", InvalidInput, "wrong dtype; got float64; expected float32"),
        ("shape", InvalidInput, "wrong size in axis 1; got shape [10, 5]"),
        ("state", InvalidData, "cannot read a state pair; got 'h'; expected 'INPUT=OUTPUT'"),
        ("truncated", InvalidData, "not a whole .npz file"),
        ("flipped", InvalidData, "not a whole .npz file"),
        ("header lies", InvalidData, "size and header disagree"),
        ("no array inside", InvalidData, "a member is no array; got evil.pkl"),
        ("pickle", InvalidData, "not a whole .npz file"),
        ("text", InvalidData, "not a whole .npz file"),
        ("zero bytes", FileProblem, "the data file is empty"),
        ("missing", FileProblem, "no such data file"),
        ("suffix", InvalidData, "not a kind of data file; expected .npz"),
        ("empty folder", InvalidData, "nothing usable is in this folder; expected .npz"),
        ("idx", InvalidData, "a truncated IDX file"),
        ("idx magic", InvalidData, "not an IDX file; got first bytes 68656c6c"),
        ("gzip", InvalidData, "a damaged gzip file"),
        ("image", InvalidData, "not a whole image"),
        ("npy", InvalidData, "size and header disagree; truncated?; got 399 bytes; expected 408"),
        ("npy objects", InvalidData, "object arrays are not read"),
        ("twice", InvalidData, "a column is there twice; got x.npy and x/"),
    ],
)
def test_bad_data_is_one_line(tmp_path: Path, kind: str, error: type[ToolkitError], message: str) -> None:
    path = damaged(kind, tmp_path)
    with pytest.raises(error) as caught:
        list(open_data(path, inputs=specs("x:float32[n,7]")))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([], "holds no samples"),
        (3, "not an iterable; got int"),
        ([{"x": 3.0}], "not a batch; got float without a sample axis"),
        ([{"x": X}, {"y": X}], r"a batch lacks an array; got \['y'\]; expected x"),
        ([{"x": X, "labels": LABELS[:3]}], "different numbers of samples"),
        ([{"x": np.array([None, {}], dtype=object)}], "object arrays are not read"),
    ],
)
def test_bad_iterables_are_one_line(items: Any, message: str) -> None:
    with pytest.raises(InvalidData, match=message):
        list(from_iterable(items))


def test_arrays_called_like_the_models_own_input_are_ready(tmp_path: Path) -> None:
    recipe = Preprocessing((InputSteps("pixels", (Scale(factor=1 / 255),), source="image"),))
    images = np.full((2, 3), 255, np.uint8)
    for name, values in (("image", images), ("pixels", images.astype(np.float32) / 255)):
        np.savez(tmp_path / f"{name}.npz", **{name: values})
        data = open_data(tmp_path / f"{name}.npz", inputs=specs("pixels:float32[n,3]"), preprocessing=recipe)
        assert gathered(data)[0]["pixels"].tolist() == [[1.0, 1.0, 1.0]] * 2
    with pytest.raises(InvalidData, match="no array 'image'"):
        np.savez(tmp_path / "other.npz", other=images)
        open_data(tmp_path / "other.npz", inputs=specs("pixels:float32[n,3]"), preprocessing=recipe)


def test_a_preprocessing_error_names_the_file(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "d.npz", {"x": X})
    with pytest.raises(InvalidData, match=r"d.npz: input 'x': preprocessing step 1 \(reshape\) does not fit"):
        list(open_data(path, preprocessing=Preprocessing((InputSteps("x", (Reshape((3, 3)),)),))))


def test_a_batch_is_data() -> None:
    assert Batch({"x": X}, None, 10).start == 0
