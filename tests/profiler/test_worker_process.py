"""Real worker processes: what they answer, and what becomes of them when they crash, hang or lose their parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from toolkit.profiler.cases import Case
from toolkit.profiler.process import CaseEnded, ProcessWorker
from toolkit.profiler.protocol import Block, Measure, Open, Opened, Proof, Prove
from toolkit.targets import Target
from toolkit.tensors import TensorSpec

NULL = Target(name="null", provider="null")
NullModelFile = Callable[..., str]


@pytest.fixture
def worker() -> Iterator[ProcessWorker]:
    worker = ProcessWorker()
    yield worker
    worker.close()


def case(path: str, **changes: Any) -> Case:
    return Case(**{"model": "m", "path": path, "target": NULL, **changes})


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def gone(pid: int) -> bool:
    """Whether the process ends within the next seconds."""
    end = time.monotonic() + 20
    while alive(pid) and time.monotonic() < end:
        time.sleep(0.02)
    return not alive(pid)


def test_a_worker_opens_measures_and_proves(worker: ProcessWorker, null_model: NullModelFile) -> None:
    path = null_model(delay_ns=2_000_000)
    opened = worker.ask(Open(case(path, batch=3)), Opened, 60)
    assert (opened.batch, opened.dims, opened.shapes, opened.precision) == (3, {}, [[3, 4]], "float32")
    assert opened.first_inference_ns >= 2_000_000
    assert min(opened.import_ns, opened.load_ns, opened.base_memory_bytes) > 0
    block = worker.ask(Measure(20_000_000), Block, 60)
    assert 1 <= block.calls == len(block.samples_ns) <= 10
    assert min(block.samples_ns) >= 2_000_000
    assert block.peak_memory_bytes >= opened.base_memory_bytes
    assert worker.ask(Prove(), Proof, 60).execution.provider == "null"


def test_very_short_calls_are_thinned_and_counted(worker: ProcessWorker, null_model: NullModelFile) -> None:
    worker.ask(Open(case(null_model())), Opened, 60)
    block = worker.ask(Measure(200_000_000), Block, 60)
    assert block.calls > 2 * len(block.samples_ns)
    assert 500 <= len(block.samples_ns) <= 1500


def test_a_block_holds_a_call_however_short_it_is(worker: ProcessWorker, null_model: NullModelFile) -> None:
    worker.ask(Open(case(null_model(delay_ns=5_000_000))), Opened, 60)
    assert worker.ask(Measure(1), Block, 60).calls == 1


def test_what_the_engine_prints_does_not_reach_the_replies(worker: ProcessWorker, null_model: NullModelFile) -> None:
    worker.ask(Open(case(null_model(failure="noise", delay_ns=1_000_000))), Opened, 60)
    assert worker.ask(Measure(5_000_000), Block, 60).calls >= 1


def test_nan_is_noticed(worker: ProcessWorker, null_model: NullModelFile) -> None:
    assert worker.ask(Open(case(null_model(failure="nan"))), Opened, 60).warnings == ["output 'y' holds NaN"]


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        ("exit", "its worker ended with exit code 7"),
        ("segfault", "its worker was killed by SIGSEGV"),
        ("raise", "the null engine failed, as its model asks"),
    ],
)
def test_a_run_that_fails_says_why(worker: ProcessWorker, null_model: NullModelFile, failure: str, reason: str) -> None:
    worker.ask(Open(case(null_model(failure=failure, fail_after=2))), Opened, 60)
    with pytest.raises(CaseEnded) as caught:
        worker.ask(Measure(1_000_000), Block, 60)
    assert caught.value.status == "failed"
    assert caught.value.reason.startswith(reason)


def test_a_worker_that_hangs_is_given_up_and_killed(worker: ProcessWorker, null_model: NullModelFile) -> None:
    worker.ask(Open(case(null_model(failure="hang", fail_after=2))), Opened, 60)
    with pytest.raises(CaseEnded, match="no answer within 1 s"):
        worker.ask(Measure(1_000_000), Block, 1)
    worker.close()
    assert not alive(worker.pid)


def test_a_fixed_batch_is_not_applicable(worker: ProcessWorker, null_model: NullModelFile) -> None:
    path = null_model(inputs=(TensorSpec("x", "float32", (2, 4)),), outputs=())
    with pytest.raises(CaseEnded, match="the batch is fixed at 2") as caught:
        worker.ask(Open(case(path, batch=8)), Opened, 60)
    assert caught.value.status == "not_applicable"


def test_a_missing_file_is_told_in_one_line(worker: ProcessWorker) -> None:
    with pytest.raises(CaseEnded, match=r"nowhere/model.json: no such model file"):
        worker.ask(Open(case("nowhere/model.json")), Opened, 60)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("print('{]garbage', flush=True); input()", "its worker answered garbage: '{]garbage'"),
        ('print(\'{"type":"proof"}\', flush=True); input()', "its worker answered garbage"),
        ("raise SystemExit('no engine here')", "its worker ended with exit code 1: no engine here"),
        ("input(); import os; os.close(1); import time; time.sleep(60)", "its worker closed the connection"),
    ],
)
def test_a_worker_that_is_none(code: str, reason: str) -> None:
    worker = ProcessWorker((sys.executable, "-c", code))
    try:
        with pytest.raises(CaseEnded) as caught:
            worker.ask(Prove(), Proof, 60)
        assert caught.value.reason.startswith(reason)
    finally:
        worker.close()


def test_endless_output_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toolkit.profiler.process.LARGEST_REPLY", 1_000_000)
    worker = ProcessWorker((sys.executable, "-c", "while True: print('x' * 10000, end='')"))
    try:
        with pytest.raises(CaseEnded, match="answered without end"):
            worker.ask(Prove(), Proof, 60)
    finally:
        worker.close()


def test_closing_takes_along_what_the_worker_started() -> None:
    code = "import subprocess, sys; p = subprocess.Popen(['sleep', '600']); print(p.pid, flush=True); input(); input()"
    worker = ProcessWorker((sys.executable, "-c", code))
    with pytest.raises(CaseEnded) as caught:
        worker.ask(Prove(), Proof, 60)
    grandchild = int(caught.value.reason.split("'")[1])
    assert alive(grandchild)
    worker.close()
    assert gone(grandchild)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux kills children with their parent")
def test_a_worker_dies_with_its_parent_even_while_it_hangs(null_model: NullModelFile, tmp_path: Path) -> None:
    parent = (
        "import sys\n"
        "from toolkit.profiler.process import ProcessWorker\n"
        "from toolkit.profiler.protocol import Open, Opened\n"
        "from toolkit.profiler.cases import Case\n"
        "from toolkit.targets import Target\n"
        "worker = ProcessWorker()\n"
        "print(worker.pid, flush=True)\n"
        f"worker.ask(Open(Case(model='m', path={null_model(failure='hang')!r}, "
        "target=Target(name='null', provider='null'))), Opened, 600)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    pid = int(process.stdout.readline())
    time.sleep(1)  # long enough to be inside the call that hangs; dying earlier would pass as well
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert gone(pid)


def test_a_worker_imports_no_more_than_an_application_would(null_model: NullModelFile) -> None:
    code = (
        "import io, sys\n"
        "from toolkit.profiler.worker import serve\n"
        "from toolkit.profiler.protocol import Open, Measure\n"
        "from toolkit.profiler.cases import Case\n"
        "from toolkit.targets import Target\n"
        "import msgspec\n"
        f"case = Case(model='m', path={null_model()!r}, target=Target(name='null', provider='null'))\n"
        "asked = b''.join(msgspec.json.encode(r) + b'\\n' for r in (Open(case), Measure(1)))\n"
        "serve(io.BytesIO(asked), io.BytesIO())\n"
        "print({'torch', 'onnx', 'onnx_ir', 'onnxscript', 'click', 'rich', 'onnxruntime'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


def test_sizes_that_were_guessed_are_named_when_the_first_inference_fails(
    worker: ProcessWorker, null_model: NullModelFile
) -> None:
    specs = (TensorSpec("x", "float32", ("batch", "seq")),)
    path = null_model(inputs=specs, outputs=specs, failure="raise")
    with pytest.raises(CaseEnded, match=r"sizes were guessed \(seq=16\): give --dim") as caught:
        worker.ask(Open(case(path)), Opened, 60)
    assert caught.value.status == "failed"
    with pytest.raises(CaseEnded) as caught:
        worker.ask(Open(case(path, dims={"seq": 3})), Opened, 60)
    assert "guessed" not in caught.value.reason
