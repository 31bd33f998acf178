"""Handlers of training, on engines of a few steps."""

from ignite.engine import Engine, Events

from cxw_monai.training import EpochMeans


def test_epoch_means_weigh_images_and_forget_what_an_epoch_did_not_report():
    engine = Engine(lambda engine, batch: [batch])
    EpochMeans().attach(engine)
    epochs = iter([[(1.0, 7.0, 3), (5.0, None, 1)], [(4.0, None, 2), (4.0, None, 2)]])

    def batches():
        for loss, rank, count in next(epochs):
            yield {"scalars": {"loss": loss, **({} if rank is None else {"rank": rank})}, "count": count}

    seen = []
    engine.add_event_handler(Events.EPOCH_COMPLETED, lambda engine: seen.append(dict(engine.state.metrics)))
    for _ in range(2):
        engine.run(batches(), max_epochs=engine.state.epoch + 1, epoch_length=2)
    assert seen == [{"loss": 2.0, "rank": 7.0}, {"loss": 4.0}]
