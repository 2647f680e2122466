"""Intel's MKL is asked for its strict mode, processors of others are left alone."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from merge_core import rounding

INTEL = "processor\t: 0\nvendor_id\t: GenuineIntel\nmodel name\t: Xeon\n"


@pytest.fixture
def unset(monkeypatch):
    monkeypatch.delenv(rounding.MODE, raising=False)


@pytest.mark.parametrize(
    ("info", "mode"),
    [
        (INTEL, "AUTO,STRICT"),
        (INTEL.replace("GenuineIntel", "AuthenticAMD"), None),
        ("processor\t: 0\nCPU implementer\t: 0x41\n", None),
        ("", None),
    ],
)
def test_the_mode_goes_by_the_maker(monkeypatch, unset, tmp_path, info, mode):
    file = tmp_path / "cpuinfo"
    file.write_text(info)
    monkeypatch.setattr(rounding, "_INFO", file)
    rounding.ask_for_rows_alike()
    assert os.environ.get(rounding.MODE) == mode
    assert rounding.is_asked_for() == (mode is not None)


def test_other_systems_tell_the_maker_themselves(monkeypatch, unset, tmp_path):
    monkeypatch.setattr(rounding, "_INFO", tmp_path / "none")
    said = "Intel64 Family 6 Model 158 Stepping 10, GenuineIntel"
    monkeypatch.setattr(rounding.platform, "processor", lambda: said)
    rounding.ask_for_rows_alike()
    assert rounding.is_asked_for()


def test_what_the_user_set_stays(monkeypatch, tmp_path):
    (tmp_path / "cpuinfo").write_text(INTEL)
    monkeypatch.setattr(rounding, "_INFO", tmp_path / "cpuinfo")
    monkeypatch.setenv(rounding.MODE, "AVX2")
    rounding.ask_for_rows_alike()
    assert os.environ[rounding.MODE] == "AVX2"
    assert not rounding.is_asked_for()


@pytest.mark.parametrize(
    "package", ["merge_core", "evaluators.registry", "search.cli", "mergetune"]
)
def test_every_package_asks_before_torch_multiplies(package):
    text = (
        f"import sys, {package}, os\n"
        "from merge_core import rounding\n"
        "asked = rounding.INTEL in rounding._maker()\n"
        "sys.exit(rounding.is_asked_for() != asked)\n"
    )
    environment = {key: x for key, x in os.environ.items() if key != rounding.MODE}
    assert subprocess.run([sys.executable, "-c", text], env=environment).returncode == 0
