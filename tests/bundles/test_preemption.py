"""The pretraining bundle under torchrun, told to go by SIGTERM as a scheduler would."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

BUNDLE = Path(__file__).parents[2] / "bundles" / "chexworld_pretraining"
SETTINGS = {
    "network_size": "tiny",
    "image_size": 96,
    "predictor_dim": 24,
    "predictor_depth": 1,
    "cache_size": 96,
    "batch_size": 2,
    "epochs": 500,
    "warmup_epochs": 1,
    "save_interval": 500,
    "save_steps": 1,
    "save_minutes": "None",
    "num_workers": 1,
    "lr_batch_size": 8,
    "global_batch_size": 8,
}


@pytest.mark.slow
def test_two_processes_and_their_workers_save_together_and_end(tmp_path):
    films, output = tmp_path / "films", tmp_path / "out"
    films.mkdir()
    for number in range(20):
        pixels = np.random.default_rng(number).integers(0, 256, (8, 8)).astype(np.uint8)
        Image.fromarray(pixels).resize((110, 100)).save(films / f"{number:02}.png")
    settings = [f"--{k}={v}" for k, v in {**SETTINGS, "dataset_dir": films, "output_dir": output}.items()]
    configs = "['configs/train.json','configs/multi_gpu_train.json']"
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "monai.bundle"]
    with (tmp_path / "log").open("w+") as log:
        process = subprocess.Popen(
            [*launch, "run", "training", "--config_file", configs, *settings],
            cwd=BUNDLE,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=log,
            stderr=log,
        )
        deadline = time.monotonic() + 600
        while not list(output.glob("checkpoint_epoch=*.pt")):
            assert process.poll() is None and time.monotonic() < deadline, (tmp_path / "log").read_text()
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        status = process.wait(300)
    said = (tmp_path / "log").read_text()
    assert status != 0
    steps = re.findall(r"Ended by SIGTERM after step (\d+): all is saved", said)
    assert len(steps) == 2 and steps[0] == steps[1], said
    contents = [torch.load(path, weights_only=True) for path in output.glob("checkpoint_epoch=*.pt")]
    last = max(contents, key=lambda content: content["iteration"])
    assert last["iteration"] == int(steps[0]) and len(last["processes"]) == 2
    assert last["iteration"] % 2 == 0  # 4 steps an epoch, 2 of them accumulated: 8 images as asked for
    assert "8 images a step (2 a process x 2 processes x 2 accumulated), learning rate 0.0002" in said
    assert "killed by signal" not in said and "Exception" not in said.split("SignalException")[0]
