"""Which precision a device gets: bfloat16 where the hardware computes it, else float32, said once."""

from __future__ import annotations

import json
import logging
import os
import platform
import subprocess
import sys

import pytest
import torch

from cxw_monai.networks import cpu_block as lean_block
from cxw_monai.training import precision
from cxw_monai.training.precision import Precision, autocast, bfloat16_support, checked_amp, supported_amp

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def nothing_told(caplog):
    caplog.set_level(logging.INFO, logger="cxw_monai")
    precision._log_fallback.cache_clear()
    yield
    precision._log_fallback.cache_clear()


@pytest.fixture
def machine(monkeypatch):
    """Sets how well the processor computes bfloat16."""
    return lambda support: monkeypatch.setattr(precision, "bfloat16_support", lambda device: support)


@pytest.mark.parametrize(
    ("support", "amp", "expected"),
    [
        ("fast", "auto", "bfloat16"),
        ("fast", "bfloat16", "bfloat16"),
        ("fast", "none", "none"),
        ("slow", "auto", "none"),
        ("slow", "bfloat16", "bfloat16"),
        ("slow", "none", "none"),
        ("none", "auto", "none"),
        ("none", "bfloat16", "none"),
        ("none", "none", "none"),
    ],
)
def test_what_a_setting_comes_to(machine, support, amp, expected):
    machine(support)
    assert supported_amp(CPU, amp) == expected
    with autocast(CPU, amp):
        assert torch.is_autocast_enabled("cpu") == (expected == "bfloat16")
        if expected == "bfloat16":
            assert torch.get_autocast_dtype("cpu") == torch.bfloat16


def test_a_fallback_is_a_warning_where_bfloat16_was_asked_for_and_comes_once(machine, caplog):
    machine("none")
    for _ in range(3):
        supported_amp(CPU, "bfloat16")
        with autocast("cpu", "bfloat16"):
            pass
    warned = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert len(warned) == 1
    assert "bfloat16 was asked for, but this processor" in warned[0] and "float32" in warned[0]
    caplog.clear()
    for _ in range(3):
        supported_amp(CPU, "auto")
    assert [r.levelno for r in caplog.records] == [logging.INFO]


def test_nothing_is_told_where_nothing_falls_back(machine, caplog):
    machine("fast")
    for amp in ("auto", "bfloat16", "none"):
        supported_amp(CPU, amp)
    machine("none")
    supported_amp(CPU, "none")
    assert not caplog.records


@pytest.mark.parametrize("amp", ["float16", "fp16", "bf16", "", None, True, ["bfloat16"]])
def test_other_settings_are_refused(amp):
    for refuse in (checked_amp, Precision, lambda amp: supported_amp(CPU, amp)):
        with pytest.raises(ValueError, match="amp must be 'auto', 'bfloat16' or 'none', got"):
            refuse(amp)


def test_float16_is_told_why():
    with pytest.raises(ValueError, match="float16 would need its losses scaled; give 'bfloat16'"):
        checked_amp("float16")


class TestPrecisionOfARun:
    def test_goes_through_a_checkpoint(self, machine, caplog):
        machine("fast")
        first, second = Precision("auto"), Precision("auto")
        assert first.state_dict() == {"amp": None}
        first.autocast(CPU)
        assert first.state_dict() == {"amp": "bfloat16"}
        second.load_state_dict(first.state_dict())
        second.autocast(CPU)
        assert not caplog.records

    @pytest.mark.parametrize("amp", ["auto", "bfloat16"])
    def test_resumed_where_bfloat16_is_not_computed_it_says_so_once(self, machine, caplog, amp):
        machine("none")
        run = Precision(amp)
        run.load_state_dict({"amp": "bfloat16"})
        for _ in range(3):
            run.autocast(CPU)
        warned = [r.getMessage() for r in caplog.records if "Up to here" in r.getMessage()]
        assert warned == [
            "Up to here this run was computed in bfloat16, from here on in float32, since the device here does not "
            "compute bfloat16: its numbers will not be those of a run that was not interrupted. For those, resume "
            "where bfloat16 is computed, with --amp bfloat16."
        ]
        assert run.state_dict() == {"amp": "none"}

    def test_begun_in_float32_and_resumed_where_bfloat16_is_computed(self, machine, caplog):
        machine("fast")
        run = Precision("auto")
        run.load_state_dict({"amp": "none"})
        run.autocast(CPU)
        assert [r.getMessage() for r in caplog.records] == [
            "Up to here this run was computed in float32, from here on in bfloat16: its numbers will not be those of "
            "a run that was not interrupted. For those, give --amp none."
        ]


def test_a_graphics_card_is_asked_whether_bfloat16_is_emulated(monkeypatch):
    asked = []
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: asked.append(including_emulation))
    assert bfloat16_support("cuda") == "none" and asked == [False]
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    assert bfloat16_support(torch.device("cuda", 0)) == "fast"
    assert bfloat16_support("mps") == "none"


def test_without_the_fused_layer_a_bfloat16_block_has_the_same_numbers(monkeypatch):
    """What a processor without bfloat16 products gets where the caller opened autocast himself."""
    weight, bias = (torch.randn(shape, generator=torch.Generator().manual_seed(0)) for shape in ((6, 8), (6,)))
    x = torch.randn(5, 8, generator=torch.Generator().manual_seed(1))
    expected = x.double() @ weight.double().t() + bias.double()
    found = {}
    for fused in {lean_block._adds_bias_in_product(), False}:
        monkeypatch.setattr(lean_block, "_adds_bias_in_product", lambda fused=fused: fused)
        found[fused] = lean_block._linear(x.bfloat16(), weight.bfloat16(), bias.bfloat16())
        torch.testing.assert_close(found[fused].double(), expected, rtol=0.02, atol=0.05)


def test_a_fused_layer_that_only_raises_is_not_used(monkeypatch):
    class Operators:
        @staticmethod
        def _linear_pointwise(*arguments):
            raise RuntimeError("could not create a primitive descriptor for the inner product")

    lean_block._adds_bias_in_product.cache_clear()
    monkeypatch.setattr(torch.ops, "mkldnn", Operators)
    assert lean_block._adds_bias_in_product() is False
    lean_block._adds_bias_in_product.cache_clear()


OLDER = {
    "EPYC with AVX2": {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"},
    "PyTorch's kernels alone": {"ATEN_CPU_CAPABILITY": "default"},
    "no AVX2": {"ONEDNN_MAX_CPU_ISA": "SSE41", "ATEN_CPU_CAPABILITY": "default"},
    "AVX-512 without bfloat16": {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE"},
}
STEP = """
import json, logging, sys
import torch
from cxw_monai.training.precision import autocast, bfloat16_support
from cxw_monai.networks import radiograph_vit
logging.basicConfig(stream=sys.stderr, level=logging.WARNING)
encoder, image, found = radiograph_vit("tiny", image_size=224, depth=1), torch.rand(1, 1, 224, 224), []
for amp in ("auto", "bfloat16", "bfloat16", "none"):
    with autocast("cpu", amp):
        found.append(encoder.train()(image))
    found[-1].float().square().mean().backward()
    with torch.inference_mode(), autocast("cpu", amp):
        encoder.eval()(image)
same = all(torch.equal(found[-1], other) for other in found)
print(json.dumps({"support": bfloat16_support("cpu"), "float32": same}))
"""


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="the variables are those of x86 processors")
@pytest.mark.parametrize("name", OLDER)
def test_an_older_processor_trains_and_infers_in_float32_and_says_so_once(name):
    unset = {key: value for key, value in os.environ.items() if key not in OLDER["EPYC with AVX2"]}
    done = subprocess.run(
        [sys.executable, "-c", STEP], env={**unset, **OLDER[name]}, capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == {"support": "none", "float32": True}
    assert done.stderr.count("bfloat16 was asked for, but this processor does not compute it in hardware") == 1
