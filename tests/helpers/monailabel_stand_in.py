"""A stand-in for what `cxw_monai.label` uses of MONAI Label 0.8.5, where that isn't installed.

It keeps films and labels in the same files and calls the app's parts in the same order, and does nothing else. The same
tests run with MONAI Label itself in its own environment, so that they can't part: `bash .ci/run monailabel-selftest`.
"""

from __future__ import annotations

import fnmatch
import json
import os
import random
import shutil
import sys
from dataclasses import asdict, dataclass, field
from enum import Enum
from types import ModuleType, SimpleNamespace
from typing import Any

__all__ = ["install"]


class DefaultLabelTag(str, Enum):
    ORIGINAL = "original"
    FINAL = "final"


class InferType(str, Enum):
    SEGMENTATION = "segmentation"
    CLASSIFICATION = "classification"
    OTHERS = "others"


class Datastore:
    pass


class InferTask:
    def __init__(self, type: Any, labels: Any, dimension: int, description: str) -> None:  # noqa: A002, its name there
        self.type, self.labels, self.dimension, self.description = type, labels, dimension, description

    def info(self) -> dict[str, Any]:
        return {"type": self.type, "labels": self.labels, "dimension": self.dimension, "description": self.description}


class Strategy:
    def __init__(self, description: str) -> None:
        self.description = description

    def info(self) -> dict[str, Any]:
        return {"description": self.description}


class TrainTask(Strategy):
    def stats(self) -> dict[str, Any]:
        return {}


class Random(Strategy):
    def __init__(self) -> None:
        super().__init__("Random Strategy")

    def __call__(self, request: dict[str, Any], datastore: LocalDatastore) -> dict[str, Any] | None:
        images = datastore.get_unlabeled_images(request.get("label_tag"), request.get("labels"))
        return {"id": random.choice(images), "weight": 1} if images else None


@dataclass
class DataModel:
    ext: str = ""
    info: dict[str, Any] = field(default_factory=dict)


@dataclass
class ImageLabelModel:
    image: DataModel
    labels: dict[str, DataModel] = field(default_factory=dict)


class LocalDatastore(Datastore):
    """Films in a folder, labels in ``labels/<tag>/<film><ending>``, a record of both in ``datastore_v2.json``."""

    def __init__(self, datastore_path: str, extensions: Any = ("*.nii.gz",), auto_reload: bool = False) -> None:
        self._path, self._extensions, self._auto_reload = datastore_path, extensions, auto_reload
        self._datastore = SimpleNamespace(objects={}, image_path=lambda: os.path.join(datastore_path, "."))
        for tag in DefaultLabelTag:
            os.makedirs(self._label_path(tag.value), exist_ok=True)
        self.refresh()

    def _label_path(self, tag: str) -> str:
        return os.path.join(self._path, "labels", getattr(tag, "value", tag))

    def _list_files(self, path: str, patterns: Any) -> dict[str, str]:
        return {file: file for pattern in patterns for file in fnmatch.filter(os.listdir(path), pattern)}

    def _to_id(self, file: str) -> tuple[str, str]:
        return os.path.splitext(file)

    def refresh(self) -> None:
        objects = self._datastore.objects
        for file in self._list_files(self._datastore.image_path(), self._extensions):
            name, ending = self._to_id(file)
            objects.setdefault(name, ImageLabelModel(image=DataModel(ext=ending)))
        for name in [one for one, kept in objects.items() if not os.path.exists(self._film(one, kept.image.ext))]:
            del objects[name]
        labels = os.path.join(self._path, "labels")
        for tag in [one for one in os.listdir(labels) if os.path.isdir(os.path.join(labels, one))]:
            files = os.listdir(self._label_path(tag))
            for name, kept in objects.items():
                if tag in kept.labels and name + kept.labels[tag].ext not in files:
                    del kept.labels[tag]
        self._update_datastore_file()

    def _film(self, name: str, ending: str) -> str:
        return os.path.realpath(os.path.join(self._datastore.image_path(), name + ending))

    def _update_datastore_file(self, lock: bool = True) -> None:
        kept = {name: asdict(one) for name, one in self._datastore.objects.items()}
        with open(os.path.join(self._path, "datastore_v2.json"), "w") as file:
            json.dump({"objects": kept}, file, default=str)

    def list_images(self) -> list[str]:
        return list(self._datastore.objects)

    def get_labeled_images(self, label_tag: Any = None, labels: Any = None) -> list[str]:
        return [name for name, kept in self._datastore.objects.items() if kept.labels.get("final")]

    def get_unlabeled_images(self, label_tag: Any = None, labels: Any = None) -> list[str]:
        return [name for name, kept in self._datastore.objects.items() if not kept.labels.get("final")]

    def get_image_uri(self, image_id: str) -> str:
        kept = self._datastore.objects.get(image_id)
        return self._film(image_id, kept.image.ext) if kept else ""

    def get_label_uri(self, label_id: str, label_tag: str) -> str:
        kept = self._datastore.objects[label_id].labels.get(label_tag)
        return os.path.realpath(os.path.join(self._label_path(label_tag), label_id + kept.ext)) if kept else ""

    def add_image(self, image_id: str, image_filename: str, image_info: dict[str, Any]) -> str:
        ending = self._to_id(os.path.basename(image_filename))[1]
        shutil.copy(image_filename, self._film(image_id, ending))
        self._datastore.objects[image_id] = ImageLabelModel(image=DataModel(ext=ending, info=image_info or {}))
        self._update_datastore_file()
        return image_id

    def save_label(self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any]) -> str:
        ending, tag = self._to_id(os.path.basename(label_filename))[1], getattr(label_tag, "value", label_tag)
        os.makedirs(self._label_path(tag), exist_ok=True)
        shutil.copy(label_filename, os.path.join(self._label_path(tag), image_id + ending))
        self._datastore.objects[image_id].labels[tag] = DataModel(ext=ending, info=label_info or {})
        self._update_datastore_file()
        return image_id

    def remove_label(self, label_id: str, label_tag: str) -> None:
        os.unlink(self.get_label_uri(label_id, label_tag))
        self.refresh()

    def status(self) -> dict[str, Any]:
        return {"total": len(self.list_images()), "completed": len(self.get_labeled_images())}


class MONAILabelApp:
    """Makes its parts in this order: datastore, infers, trainers, strategies."""

    def __init__(
        self, app_dir: str, studies: str, conf: dict[str, str], name: str, description: str, version: str
    ) -> None:
        self.app_dir, self.studies, self.conf = app_dir, studies, conf
        self.name, self.description, self.version = name, description, version
        self._datastore = self.init_datastore()
        self._infers, self._trainers = self.init_infers(), self.init_trainers()
        self._strategies = self.init_strategies()

    def datastore(self) -> LocalDatastore:
        return self._datastore

    def info(self) -> dict[str, Any]:
        models = {name: task.info() for name, task in self._infers.items() if task.is_valid()}
        named = [task["labels"] for task in models.values() if isinstance(task["labels"], dict)]
        return {
            "models": models,
            "trainers": {name: task.info() for name, task in self._trainers.items()},
            "strategies": {name: task.info() for name, task in self._strategies.items()},
            "labels": [label for labels in named for label in sorted(labels, key=labels.get)],
            "datastore": self._datastore.status(),
        }

    def train(self, request: dict[str, Any]) -> dict[str, Any]:
        return self._trainers[request["model"]](request, self.datastore())

    def next_sample(self, request: dict[str, Any]) -> dict[str, Any]:
        found = self._strategies[request["strategy"]](request, self.datastore())
        return found | {"path": self._datastore.get_image_uri(found["id"])} if found else {}

    def batch_infer(self, request: dict[str, Any], datastore: Any = None) -> dict[str, Any]:
        if request.get("multi_gpu", True):
            raise ZeroDivisionError("integer modulo by zero")  # as it does on a machine without a GPU
        store, results = datastore or self.datastore(), {}
        for name in sorted(store.list_images()):
            one = {"label_tag": DefaultLabelTag.ORIGINAL} | request | {"image": name, "save_label": True}
            results[name] = self.infer(one, store)
            os.unlink(results[name].pop("file"))
        return results


def _web() -> Any:
    """MONAI Label's web application: any page may read from it."""
    from fastapi import FastAPI
    from fastapi.middleware.cors import CORSMiddleware

    app = FastAPI()
    app.add_middleware(CORSMiddleware, allow_origins=["*"], allow_methods=["*"], allow_headers=["*"])
    app.get("/info/")(lambda: {})
    return app


def install() -> None:
    """Make `import monailabel...` give these."""
    settings = SimpleNamespace(MONAI_LABEL_DICOMWEB_USERNAME="", MONAI_LABEL_DICOMWEB_PASSWORD="")
    contents = {
        "config": {"settings": settings},
        "app": {"app": _web()},
        "interfaces.app": {"MONAILabelApp": MONAILabelApp},
        "interfaces.datastore": {"Datastore": Datastore, "DefaultLabelTag": DefaultLabelTag},
        "interfaces.tasks.infer_v2": {"InferTask": InferTask, "InferType": InferType},
        "interfaces.tasks.strategy": {"Strategy": Strategy},
        "interfaces.tasks.train": {"TrainTask": TrainTask},
        "tasks.activelearning.random": {"Random": Random},
        "datastore.local": {
            "LocalDatastore": LocalDatastore,
            "DataModel": DataModel,
            "ImageLabelModel": ImageLabelModel,
        },
    }
    for name, content in contents.items():
        parts = ["monailabel", *name.split(".")]
        for end in range(1, len(parts) + 1):
            sys.modules.setdefault(".".join(parts[:end]), ModuleType(".".join(parts[:end])))
        vars(sys.modules[".".join(parts)]).update(content)
