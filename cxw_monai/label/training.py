"""Training on the labels that people saved: the bundle's own training, from the model that is in use."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monai.bundle import ConfigWorkflow
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.train import TrainTask

from cxw_monai.io.files.atomic import atomic_file
from cxw_monai.io.files.csv_files import write_rows
from cxw_monai.weights.segmenter import read_settings

from .model import LabelModel, film_file

__all__ = ["SegmentationTraining"]

_DEFAULTS: dict[str, Any] = {
    "max_epochs": 20,
    "learning_rate": 1e-4,
    "val_split": 0.2,
    "train_batch_size": 4,
    "device": ["cpu", "cuda"],
    "publish": ["if_better", "always"],
}


class SegmentationTraining(TrainTask):
    """Trains the model further, and puts the epoch with the best validation Dice in its place.

    It replaces the model only where it draws the held-out films at least as well. A client's `params`: `max_epochs`,
    `learning_rate`, `val_split` (share of the films that are held out), `train_batch_size`, `device`, and `publish`,
    which may be ``always``. The run's files stay in the app's folder, a replaced model as ``model_before.pt`` among
    them.
    """

    def __init__(self, model: LabelModel, bundle: str | os.PathLike[str], runs: str | os.PathLike[str]) -> None:
        super().__init__("Trains the segmentation model further on the saved labels")
        self.model, self.bundle, self.runs = model, Path(bundle).resolve(), Path(runs).resolve()

    def config(self) -> dict[str, Any]:
        return dict(_DEFAULTS)

    def __call__(self, request: Mapping[str, Any], datastore: Datastore) -> dict[str, Any]:
        """Train.

        Returns:
            Number of films, the run's folder name, the held-out films' Dice before and after, and whether the model was
            replaced.

        Raises:
            ValueError: fewer than two films with a label, or a setting that can't be used.
        """
        run = self._new_folder()
        films = self._write_manifest(run / "manifest.csv", datastore)
        held_out = max(1, round(films * float(request.get("val_split", 0.2))))
        if films - held_out < 1:
            raise ValueError(f"{films} films have a saved label; at least 2 are needed, one of them to choose by")
        workflow = ConfigWorkflow(
            config_file=str(self.bundle / "configs" / "train.json"),
            meta_file=str(self.bundle / "configs" / "metadata.json"),
            logging_file=False,
            workflow_type="train",
            **self._settings(request, run, held_out, films),
        )
        workflow.initialize()
        before = _validation_dice(workflow)
        workflow.run()
        workflow.finalize()
        after = workflow.parser.get_parsed_content("train::best").score
        shutil.rmtree(run / "cache", ignore_errors=True)
        published = request.get("publish") == "always" or after >= before
        if published:
            shutil.copyfile(self.model.path, run / "model_before.pt")
            with atomic_file(self.model.path) as stream:
                stream.write((run / "model.pt").read_bytes())
        dice = {"validation_dice_before": round(before, 4), "validation_dice": round(after, 4)}
        return {"films": films, "run": run.name, "published": published, **dice}

    def _settings(self, request: Mapping[str, Any], run: Path, held_out: int, films: int) -> dict[str, Any]:
        """Settings of the bundle's training that starts from the model in use."""
        settings = read_settings(self.model.path)
        loaded = {"path": str(self.model.path.resolve())}
        epochs = int(request.get("max_epochs", _DEFAULTS["max_epochs"]))
        batch = min(int(request.get("train_batch_size", _DEFAULTS["train_batch_size"])), films - held_out)
        device = request.get("device", "cpu")
        if epochs < 1 or batch < 1 or not isinstance(device, str):
            raise ValueError(f"max_epochs and train_batch_size must be at least 1, got {epochs} and {batch}")
        return {
            "bundle_root": str(self.bundle),
            "output_dir": str(run),
            "datalist": str(run / "manifest.csv"),
            "val_fraction": held_out / films,
            "structures": list(settings.structures),
            "network_settings": {"_target_": "cxw_monai.weights.segmenter.read_settings", **loaded},
            "network_def": {"_target_": "cxw_monai.weights.segmenter.load_segmenter", **loaded},
            "image_size": list(settings.image_size),
            "patch_size": settings.patch_size,
            "cache_size": round(1.6 * max(settings.image_size)),
            "batch_size": batch,
            "epochs": epochs,
            "warmup_epochs": min(1, epochs - 1),
            "lr": float(request.get("learning_rate", _DEFAULTS["learning_rate"])),
            "layer_decay": 1.0,
            "num_workers": 0,
            "on_error": "skip",
            "device": f"$torch.device('{'cuda:0' if device.startswith('cuda') else 'cpu'}')",
        }

    def _new_folder(self) -> Path:
        self.runs.mkdir(parents=True, exist_ok=True)
        number = 1 + max((int(one.name) for one in self.runs.iterdir() if one.name.isdigit()), default=0)
        folder = self.runs / f"{number:04d}"
        folder.mkdir()
        return folder

    def _write_manifest(self, path: Path, datastore: Datastore) -> int:
        """Write the films with saved masks; how many there are."""
        rows = []
        for image in sorted(datastore.get_labeled_images()):
            if files := datastore.mask_files(image):
                masks = {f"mask_{name}": files.get(name, "") for name in self.model.structures}
                film = film_file(datastore.get_image_uri(image))
                rows.append({"image": film, "patient_id": image, **masks})
        if len(rows) < 2:
            raise ValueError(f"{len(rows)} films have a saved label; save at least 2 before training")
        with atomic_file(path, "w", newline="", encoding="utf-8") as stream:
            write_rows(stream, list(rows[0]), rows)
        return len(rows)


def _validation_dice(workflow: ConfigWorkflow) -> float:
    """Dice of the held-out films by the model that training begins with."""
    evaluator = workflow.parser.get_parsed_content("validate::evaluator")
    evaluator.run()
    return float(evaluator.state.metrics["dice"])
