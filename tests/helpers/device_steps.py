"""Steps of training on a device without values, in a process of its own: `python -m tests.helpers.device_steps CASES`.

CASES is a JSON list of names of functions here and their arguments; what went wrong with each is printed likewise.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import torch
from monai.engines import SupervisedTrainer
from torch import Tensor, nn

from benchmarks.device.parts import loader_batch, masks_of, small_model
from cxw_monai.losses import DiceBCELoss
from cxw_monai.losses.classification import MultiLabelLoss
from cxw_monai.losses.heat_maps import HeatMapLoss
from cxw_monai.networks import RadiographClassifier, RadiographSegmenter, RadiographViT
from cxw_monai.networks.layers import Block
from cxw_monai.tasks.classification.step import ClassificationStep
from cxw_monai.tasks.landmarks.step import LandmarkStep
from cxw_monai.tasks.pretraining.step import PretrainingStep
from cxw_monai.tasks.segmentation.step import SegmentationStep
from cxw_monai.training import PretrainingSchedules, parameter_groups
from cxw_monai.training import step as training_step
from cxw_monai.weights.landmarker import landmarker_settings, new_landmarker
from tests.helpers.another_device import AnotherDevice

FAULTS: dict[str, Callable[[Tensor], Any]] = {
    "a tensor of the CPU": lambda value: value * torch.ones(value.shape),
    "a value that is read": lambda value: value.sum().item(),
    "a condition": lambda value: value if value.sum() > 0 else -value,
    "a mask as an index": lambda value: value[value > 0],
    "an index on the CPU": lambda value: value[torch.tensor([0])],
    "a way back to the CPU": lambda value: value.cpu(),
    "a copy to the CPU": lambda value: torch.empty(value.shape).copy_(value.detach()),
}


def take_step(network: nn.Module, step: Any, batch: dict[str, Tensor]) -> None:
    """A trainer's step; everything stays on the device, and scalars are read at one place, once."""
    read = []
    with AnotherDevice() as there:

        def read_values(values: Any) -> list[float]:
            assert {value.device for value in values} == {there.device}
            read.append(values)
            return [1.5] * len(values)  # a norm that is clipped

        training_step.read_values = read_values
        network = network.to(there.device).train()
        trainer = SupervisedTrainer(
            device=there.device,
            max_epochs=1,
            train_data_loader=[],  # type: ignore[arg-type]
            epoch_length=4,
            network=network,
            optimizer=torch.optim.AdamW(parameter_groups(network), lr=1e-3, foreach=True),
            loss_function=None,
            iteration_update=step,
            decollate=False,
        )
        trainer.state.iteration, trainer.state.epoch_length = 2, 4  # monitors are read at the first
        step(trainer, batch)
        tensors = [*network.parameters(), *network.buffers()]
        tensors += [value for state in trainer.optimizer.state.values() for value in state.values() if value.ndim]
        assert len(read) == 1 and {value.device for value in tensors} == {there.device}


def pretraining(cut: bool = True, checkpoint: bool = False, **settings: Any) -> None:
    model = small_model(1 if "target_layers" not in settings else 2, **settings)
    for block in model.modules():
        if isinstance(block, Block):
            block.checkpoint = checkpoint
    batch = loader_batch(cut=cut, local_crops="pooled" in settings.get("objectives", ()))
    schedules = PretrainingSchedules(4, 2, 1e-3, ema=0.9)
    take_step(model, PretrainingStep(masks_of(model), schedules, amp="none"), batch)


def segmentation(decoder: str = "unet", fault: str | None = None) -> None:
    class Step(SegmentationStep):
        def losses(self, output: Any, inputs: Any) -> Any:
            if fault is not None:
                FAULTS[fault](output)
            return super().losses(output, inputs)

    network = RadiographSegmenter(
        _encoder(), ("a", "b"), decoder, **({"base_channels": 4} if decoder == "unet" else {})
    )
    label = torch.ones(3, 2, 48, 48, dtype=torch.uint8)
    batch = {"image": torch.rand(3, 1, 48, 48), "label": label, "known": torch.tensor([[True, False]] * 3)}
    take_step(network, Step(DiceBCELoss(), lambda step: 1e-3, amp="none"), batch)


def classification(head: str = "linear", head_layers: int = 1, tokens: bool = False) -> None:
    network = RadiographClassifier(_encoder(), ("a", "b"), head, head_layers, head_norm=True)
    batch = {"image": torch.rand(3, 1, 48, 48), "label": torch.tensor([[1.0, torch.nan]] * 3)}
    if tokens:
        batch["tokens"] = torch.rand(3, head_layers, 36, 48)
    take_step(network, ClassificationStep(MultiLabelLoss(), lambda step: 1e-3, amp="none"), batch)


def landmarks() -> None:
    network = new_landmarker(
        landmarker_settings(("tip", "base"), "linear", 8, 1.5, "chest", image_size=32, size="tiny")
    )
    batch = {"image": torch.rand(3, 1, 32, 32), "points": 9 * torch.rand(3, 2, 2)}
    batch["known"] = torch.tensor([[True, False]] * 3)
    take_step(network, LandmarkStep(HeatMapLoss(distance_weight=0.1), lambda step: 1e-3, amp="none"), batch)


def _encoder() -> RadiographViT:
    return RadiographViT(48, 8, embed_dim=48, depth=2, num_heads=3)


def _outcome(name: str, settings: dict[str, Any]) -> str:
    try:
        globals()[name](**settings)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


if __name__ == "__main__":
    print(json.dumps([_outcome(*case) for case in json.loads(sys.argv[1])]))
