"""The step base as a new task meets it: with nothing but a loss it trains, saves and resumes."""

import pytest
import torch
from ignite.engine import Events
from monai.engines import SupervisedTrainer
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from cxw_monai.data.dataset import EpochSampler
from cxw_monai.training import (
    EpochMeans,
    RunState,
    SamplerEpoch,
    TrainingStep,
    parameter_groups,
    run_training,
    warmup_cosine,
)


class ClassificationStep(TrainingStep):
    """Cross-entropy of a film's class."""

    def losses(self, output, inputs):
        return {"loss": F.cross_entropy(output.float(), inputs["label"])}


class Films:
    """24 films of noise; the class is whether one is bright."""

    def __init__(self):
        self.images = torch.randn(24, 1, 8, 8, generator=torch.Generator().manual_seed(0))

    def __len__(self):
        return len(self.images)

    def __getitem__(self, key):
        image = self.images[key[1]]
        return {"image": image, "label": int(image.mean() > 0), "name": "film"}


def make_run(folder, epochs=3):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.Dropout(0.2), nn.Linear(8, 2))
    sampler = EpochSampler(24, seed=3)
    step = ClassificationStep(warmup_cosine(1e-2, 0.0, 4, epochs), amp="none")
    means = EpochMeans()
    trainer = SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=epochs,
        train_data_loader=DataLoader(Films(), 6, sampler=sampler, generator=torch.Generator().manual_seed(3)),
        network=network,
        optimizer=torch.optim.AdamW(parameter_groups(network), lr=1e-2),
        loss_function=None,
        iteration_update=step,
        accumulation_steps=2,
        decollate=False,
        train_handlers=[SamplerEpoch(sampler, 6), means],
    )
    state = RunState(folder, step, save_steps=2, parts={"means": means})
    state.attach(trainer)
    return trainer, state


def test_a_new_task_resumes_to_the_same_bits_from_the_middle_of_an_epoch(tmp_path):
    whole, state = make_run(tmp_path / "whole")
    run_training(whole, state)
    assert whole.state.metrics["loss"] < 0.69 and whole.state.output[0]["count"] == 6

    cut, state = make_run(tmp_path / "cut")

    def stop(engine):
        if engine.state.iteration == 7:  # the sixth micro-batch was the last to be saved
            raise KeyboardInterrupt

    cut.add_event_handler(Events.ITERATION_STARTED, stop)
    with pytest.raises(KeyboardInterrupt):
        run_training(cut, state)
    assert state.files.all()[-1].name == "checkpoint_epoch=1_step=6.pt"
    torch.manual_seed(99)
    again, state = make_run(tmp_path / "cut")
    run_training(again, state, resume=True)
    for name, value in whole.network.state_dict().items():
        assert torch.equal(again.network.state_dict()[name], value), name
    assert again.state.metrics["loss"] == whole.state.metrics["loss"]


def test_what_the_step_draws_from_is_among_its_parts_and_noted_before_each_group(tmp_path):
    class Coin:
        def state_dict(self):
            return {"side": 1}

        def load_state_dict(self, state):
            pass

    trainer, _ = make_run(tmp_path, epochs=1)
    step = trainer._process_function
    step.sources = {"coin": Coin()}
    assert list(step.parts) == ["coin", "non_finite", "precision"]
    noted = []
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: noted.append(dict(step.before)))
    trainer.run()
    assert [(before["iteration"], before["coin"]) for before in noted] == [(n, {"side": 1}) for n in (0, 0, 2, 2)]
