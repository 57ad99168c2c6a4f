"""What NVIDIA's driver says is read right, and its silence has a reason and a remedy."""

from __future__ import annotations

from tests.providers.conftest import H200, T4, FakeDriver, Install
from toolkit.providers.base import Unavailable
from toolkit.providers.nvidia import Driver, Gpu, driver


def test_gpus_are_listed_in_order(install_driver: Install) -> None:
    install_driver(FakeDriver((H200, T4), cuda=13010))
    found = driver()
    assert found == Driver(
        (13, 1),
        (Gpu("NVIDIA H200", "9.0", 150_000_000_000, "00" * 16), Gpu("Tesla T4", "7.5", 16_000_000_000, "01" * 16)),
    )


def test_tf32_came_with_compute_capability_8() -> None:
    assert not Gpu("Tesla T4", "7.5", 1, "").has_tf32
    assert Gpu("A100", "8.0", 1, "").has_tf32
    assert Gpu("B200", "10.0", 1, "").has_tf32


def test_no_driver(install_driver: Install) -> None:
    install_driver(None)
    found = driver()
    assert isinstance(found, Unavailable)
    assert "no NVIDIA driver" in found.reason
    assert "--gpus all" in found.remedy


def test_a_driver_that_does_not_start(install_driver: Install) -> None:
    install_driver(FakeDriver((H200,), fails=803))
    found = driver()
    assert isinstance(found, Unavailable)
    assert "unsupported display driver / cuda driver combination" in found.reason


def test_a_driver_that_shows_no_gpu(install_driver: Install) -> None:
    install_driver(FakeDriver())
    found = driver()
    assert isinstance(found, Unavailable)
    assert "CUDA_VISIBLE_DEVICES" in found.remedy
