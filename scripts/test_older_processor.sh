#!/usr/bin/env bash
# The numeric tests as an older processor runs them: `bash scripts/test_older_processor.sh [pytest arguments]`.
# oneDNN and PyTorch's own kernels are told to do without instructions newer than AVX2 (AMD EPYC before Zen 4, Intel
# before Skylake-SP). On such a processor itself this changes nothing. Training and inference on still older ones are
# tests/training/test_precision.py's, in every run of the tests.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/environment.sh
export OMP_NUM_THREADS=1  # a process per core; threads of several would wait for each other
export ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2
steps=tests/benchmarks/test_benchmark_steps.py
tests=(
    tests/networks tests/training/test_precision.py tests/training/test_steps_by_hand.py
    tests/training/test_pretraining.py tests/training/test_segmentation.py tests/bundles/test_shipped_segmenter.py
    tests/transforms tests/io/test_pixel_map.py tests/benchmarks/test_learning.py::TestTraining
    tests/benchmarks/test_benchmark.py::test_both_pipelines_make_the_same_views
    $steps::test_a_step_of_the_plain_loop_is_a_step_of_the_package
    $steps::test_in_bfloat16_the_package_is_as_near_to_float64_as_the_plain_loop
)
python -m pytest -n auto --dist loadfile -m "not slow" -k "not older_processor" "${tests[@]}" "$@"
