"""Which epoch's weights are kept, for scores given by hand."""

from math import nan

import pytest
from ignite.engine import Engine, Events
from torch import nn

from cxw_monai.training.best_model import CheckpointSaver, EarlyStopHandler


def run(folder, scores, patience=None):
    """Epochs whose weights were written, and the saver, after a training with these validation scores."""
    kept = []
    validator, trainer = Engine(lambda engine, batch: None), Engine(lambda engine, batch: None)
    trainer.network = nn.Linear(1, 1)
    best = CheckpointSaver(folder / "model.pt", lambda network, path: kept.append(trainer.state.epoch), validator)

    @trainer.on(Events.EPOCH_COMPLETED)
    def validate(engine):
        validator.state.epoch = engine.state.epoch
        validator.state.metrics = {"dice": scores[engine.state.epoch - 1]}

    best.attach(trainer)
    EarlyStopHandler(patience, best).attach(trainer)
    trainer.run([0], max_epochs=len(scores))
    return kept, best


def test_the_highest_score_is_kept(tmp_path):
    kept, best = run(tmp_path, [0.3, 0.5, 0.4])
    assert kept == [1, 2] and (best.score, best.epoch, best.waited) == (0.5, 2, 1)


def test_an_undefined_score_gives_way_to_the_first_number(tmp_path):
    kept, best = run(tmp_path, [nan, nan, 0.5, nan, 0.4])
    assert kept == [1, 2, 3] and (best.score, best.epoch, best.waited) == (0.5, 3, 2)


def test_where_no_score_is_a_number_the_last_epoch_is_kept(tmp_path, caplog):
    kept, best = run(tmp_path, [nan, nan, nan])
    assert kept == [1, 2, 3] and best.score is None and best.state_dict()["epoch"] == 3
    assert "Epoch 3: dice is undefined on the validation films." in caplog.text


@pytest.mark.parametrize(("scores", "epochs"), [([0.5, 0.4, 0.3, 0.6], 3), ([nan, nan, 0.1, 0.2], 2)])
def test_patience_counts_validations_without_a_better_score(tmp_path, scores, epochs):
    kept, best = run(tmp_path, scores, patience=2)
    assert best.validator.state.epoch == epochs
