"""The benchmark measures what it says: finite figures, the same work on both sides, memory of its own process."""

from __future__ import annotations

import json
import math
from collections import Counter
from statistics import median

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.speed.cases import Case, default_cases, format_report, measure, run_benchmark
from benchmarks.speed.made_films import synthetic_film
from benchmarks.speed.view_pipelines import PackageViews, PillowViews
from cxw_monai.training import precision


def views_of_both(seeds: tuple[int, int], count: int = 12, size: int = 96) -> tuple[torch.Tensor, torch.Tensor]:
    """The same films through both pipelines, in [0, 1]: `[4, B, 1, h, w]` and `[4, B, 3, h, w]`."""
    films = [synthetic_film(200, number) for number in range(count)]
    colour = [Image.fromarray(film[0]).convert("RGB") for film in films]
    ours = PackageViews(size, seeds[0], mean=0.0, std=1.0)(films)
    return ours, PillowViews(size, seeds[1], mean=(0, 0, 0), std=(1, 1, 1))(colour)


def test_both_pipelines_make_the_same_views():
    ours, pillow = views_of_both((5, 5))
    assert ours.shape == (4, 12, 1, 96, 96) and pillow.shape == (4, 12, 3, 96, 96)
    assert torch.equal(pillow[:, :, 0], pillow[:, :, 2])
    apart = (ours - pillow).abs().mean(dim=(2, 3, 4))  # [4, B]
    assert apart[:2].max() < 1.5 / 255  # Pillow rounds to 8 bit after every step
    assert apart[2:].max() < 4 / 255  # and a gamma below 1 stretches the rounding of dark values
    copies_differ = (ours[2:] - ours[:2]).abs().mean(dim=(2, 3, 4))
    assert (copies_differ > 0.01).sum() > 12  # most actions are no identity, so the copies were compared too


def test_other_draws_make_other_views():
    ours, pillow = views_of_both((5, 6))
    assert (ours - pillow).abs().mean() > 10 / 255


def test_normalisation_is_applied_on_both_sides():
    film = synthetic_film(128, 0)
    raw = PackageViews(64, 1, mean=0.0, std=1.0)([film])
    torch.testing.assert_close(PackageViews(64, 1, mean=0.5, std=0.25)([film]), (raw - 0.5) / 0.25)
    colour = [Image.fromarray(film[0]).convert("RGB")]
    plain = PillowViews(64, 1, mean=(0, 0, 0), std=(1, 1, 1))(colour)
    scaled = PillowViews(64, 1, mean=(0.1, 0.2, 0.3), std=(1, 2, 4))(colour)
    torch.testing.assert_close(scaled[:, :, 2], (plain[:, :, 2] - 0.3) / 4)


@pytest.mark.parametrize(
    ("case", "units"),
    [
        (Case("views", {"source": 96, "size": 48, "films": 2, "batches": 1}, threads=1), ["pairs/s", "pairs/s", "x"]),
        (Case("embedding", {"size": "tiny", "image_size": 64, "calls": 1}), ["ms"]),
        (Case("segmentation", {"size": "tiny", "image_size": 64, "batch": 2, "amp": "bfloat16", "calls": 1}), ["ms"]),
    ],
    ids=str,
)
def test_a_case_gives_finite_figures(case, units):
    threads = torch.get_num_threads()
    result = measure(case, repeats=2)
    assert torch.get_num_threads() == threads
    assert [found["unit"] for found in result["measurements"]] == units
    for found in result["measurements"]:
        assert len(found["values"]) == 2
        assert all(math.isfinite(value) and value > 0 for value in found["values"])
        assert found["min"] <= found["median"] == median(found["values"]) <= found["max"]
    assert result["threads"] == (case.threads or threads)
    assert result == json.loads(json.dumps(result))


def test_ratios_are_paired():
    ours, pillow, ratio = measure(Case("views", {"source": 64, "size": 32, "films": 1, "batches": 1}), 3)[
        "measurements"
    ]
    expected = [a / b for a, b in zip(ours["values"], pillow["values"], strict=True)]
    assert ratio["values"] == pytest.approx(expected)


def test_unknown_kind_and_no_repeats_are_refused():
    with pytest.raises(ValueError, match=r"kind must be one of \['data', 'embedding', .*'views'\], got 'x'"):
        measure(Case("x"), 1)
    with pytest.raises(ValueError, match="repeats must be at least 1, got 0"):
        measure(Case("views"), 0)


@pytest.fixture
def bfloat16(monkeypatch):
    """A processor that computes bfloat16, or doesn't."""
    return lambda support: monkeypatch.setattr(precision, "bfloat16_support", lambda device: support)


@pytest.mark.parametrize("amps", [("none", "bfloat16"), ("bfloat16",)])
def test_bfloat16_is_neither_measured_nor_named_where_it_is_not_computed(bfloat16, amps):
    bfloat16("none")
    cases = default_cases(["tiny"], amps)
    assert {case.settings["amp"] for case in cases if "amp" in case.settings} == {"none"}
    assert len(cases) == len({str(case) for case in cases})
    alone = Case("embedding", {"size": "tiny", "image_size": 64, "amp": "bfloat16", "calls": 1})
    assert [found["name"] for found in measure(alone, 1)["measurements"]] == ["embedding tiny fp32 batch 1"]
    bfloat16("slow")
    assert [found["name"] for found in measure(alone, 1)["measurements"]] == ["embedding tiny bf16 batch 1"]


def test_default_cases_cover_sizes_and_precisions(bfloat16):
    bfloat16("fast")
    cases = default_cases(["tiny", "base"], ["none", "bfloat16"], quick=True, bundle="somewhere")
    counts = Counter(case.kind for case in cases)
    expected = {"views": 2, "view_loading": 1, "step": 4, "embedding": 2, "segmentation": 2, "startup": 1, "data": 2}
    assert counts == expected
    steps = {(case.settings["size"], case.settings["amp"]) for case in cases if case.kind == "step"}
    assert steps == {(size, amp) for size in ("tiny", "base") for amp in ("none", "bfloat16")}
    latencies = {(case.settings["amp"], case.settings["batch"]) for case in cases if case.kind == "segmentation"}
    assert latencies == {(amp, 1) for amp in ("none", "bfloat16")}
    whole = {c.settings["batch"] for c in default_cases() if c.kind == "segmentation"}
    assert whole == {1, 16}
    assert all(case.threads == 1 for case in cases[:2])


def test_loaders_are_measured_from_files_and_cache_with_one_and_two_workers():
    loads = [case for case in default_cases() if case.kind == "view_loading"]
    settings = {(c.settings["source"], c.settings["decode"], c.settings["workers"]) for c in loads}
    assert settings == {(s, d, w) for s in (512, 1024) for d in (False, True) for w in (1, 2)}
    assert all(case.threads == 1 for case in loads)


def test_what_grows_is_left_out_of_a_quick_run():
    rows = {quick: [c.settings["rows"] for c in default_cases(quick=quick) if c.kind == "data"] for quick in (1, 0)}
    assert rows == {1: [100, 1000], 0: [100, 1000, 10_000, 100_000, 1_000_000]}
    grown = [case.settings for case in default_cases() if case.kind == "step" and "image_size" in case.settings]
    assert [settings["image_size"] for settings in grown] == [128, 224, 320, 448]
    assert not any(settings["beside_plain"] for settings in grown)


def test_cases_run_apart_and_a_failed_one_stops_nothing():
    ballast = np.ones(700 * 2**20, dtype=np.uint8)  # would show in the peak of a process that inherits ours
    cases = [
        Case("embedding", {"size": "nonsense"}),
        Case("embedding", {"size": "tiny", "image_size": 64, "calls": 1}, threads=1),
    ]
    lines: list[str] = []
    report = run_benchmark(cases, repeats=1, progress=lines.append)
    assert ballast[-1] == 1
    failed, done = report["results"]
    assert failed["measurements"] == [] and failed["error"].startswith("ValueError: size must be one of")
    assert "error" not in done and done["threads"] == 1 and done["seconds"] > 0
    if done["start_mib"] is not None:
        assert done["start_mib"] <= done["peak_mib"] < 700
    assert {"cpu", "cores", "torch", "python", "load_average"} <= set(report["machine"])
    assert report == json.loads(json.dumps(report))
    assert len(lines) == 4
    table = format_report(report)
    assert "embedding tiny fp32 batch 1" in table and "failed" in table
