#!/usr/bin/env bash
# The numeric tests as older processors run them: `bash scripts/test_older_processor.sh [pytest arguments]`.
# oneDNN and PyTorch's own kernels are told to do without newer instructions: once as a processor with AVX2 (AMD EPYC
# before Zen 4, Intel before Skylake-SP), once as one without any. On such a processor itself this changes nothing.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/environment.sh
export OMP_NUM_THREADS=1  # a process per core; threads of several would wait for each other
networks=(
    tests/networks tests/training/test_precision.py tests/training/test_steps_by_hand.py
    tests/training/test_pretraining.py tests/training/test_segmentation.py tests/bundles/test_shipped_segmenter.py
)
numbers=(
    tests/transforms tests/io/test_pixel_map.py tests/benchmarks/test_benchmark.py
    tests/benchmarks/test_benchmark_steps.py tests/benchmarks/test_learning.py::TestTraining
)
older() {  # VARIABLES TESTS...
    echo "With $1"
    # shellcheck disable=SC2086
    env $1 python -m pytest -n auto --dist loadfile -m "not slow" -k "not older_processor" "${@:2}"
}
older "ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2" "${networks[@]}" "${numbers[@]}" "$@"
older "ONEDNN_MAX_CPU_ISA=SSE41 ATEN_CPU_CAPABILITY=default" "${networks[@]}" "$@"  # numbers: AVX2 stands for both
