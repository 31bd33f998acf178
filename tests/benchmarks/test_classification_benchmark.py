"""Real runs of the classifier: whose films are learnt from, and which weights of a run are taken."""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.classification import films, probes, runs, table
from cxw_monai.data.manifest import read_datalist
from cxw_monai.weights.classifier import classifier_settings, new_classifier, read_classifier
from cxw_monai.weights.kinds import save_network


def write(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    for row in rows:
        if "image" in row:
            (path.parent / row["image"]).touch()


@pytest.fixture(scope="module")
def manifests(tmp_path_factory):
    """Manifests of three made-up data sets; the films themselves aren't needed."""
    data, output = (tmp_path_factory.mktemp(name) for name in ("data", "films"))
    parts = {"training": "training", "validation": "training", "test": "test", "kept": "training"}
    pool = [
        {"image": f"{part}{n}.png", "id": f"{part}{n}", "patient_id": f"{part}{n // 2}", "view": "AP", "source": source,
         "split": "test" if part == "kept" else part, "official_split": official, "label_pneumonia": n % 2,
         "label_bacterial": 0}
        for part, official in parts.items() for n in range(4) for source in ("kermany", "rsna_normal")
    ]  # fmt: skip
    write(data / "open_cxr_pool" / "manifest.csv", pool)
    shenzhen = [{"image": f"{n}.png", "id": n, "patient_id": f"p{n // 2}", "aspect": "square",
                 "label_tuberculosis": n // 2 % 2} for n in range(80)]  # fmt: skip
    write(data / "shenzhen" / "manifest.csv", shenzhen)
    nih = [{"image": f"{name}.jpg", "patient_id": name[:8], "view": "PA", "sex": "M", "Pneumonia": 0, "Effusion": 1,
            "Edema": 0} for name in films.read_split()]  # fmt: skip
    write(data / "nih_cxr14_subset" / "manifest.csv", nih)
    return output, films.write_tasks(data, output)


def test_no_patient_is_in_two_parts(manifests):
    folder, counts = manifests
    for task, wanted in films.TASKS.items():
        parts = defaultdict(set)
        for name in (task, *(f"{task}_{test}" for test in wanted.tests)):
            rows = read_datalist(folder / f"{name}.csv", section="all")
            assert len(rows) == counts[name] > 0
            for row in rows:
                assert all(str(row[f"label_{label}"]) in "01" for label in wanted.classes)
                parts[row["split"]].add(row["patient_id"])
        assert len(set().union(*parts.values())) == sum(map(len, parts.values()))
        assert {"training", "validation", *wanted.tests} == set(parts)
    assert (counts["paediatric"], counts["paediatric_test"], counts["paediatric_training_folder"]) == (8, 4, 4)
    assert (counts["shenzhen_0"], counts["shenzhen_0_test"]) == (64, 16)


def test_splits_of_shenzhen_differ(manifests):
    tests = [{row["image"] for row in read_datalist(manifests[0] / f"shenzhen_{n}_test.csv", section="all")}
             for n in range(films.SHENZHEN_SPLITS)]  # fmt: skip
    assert len(set(map(frozenset, tests))) == films.SHENZHEN_SPLITS


@pytest.mark.parametrize(("average", "path"), [(0.9, "average/model.pt"), (0.7, "model.pt"), (None, "model.pt")])
def test_the_weights_that_are_better_on_validation_films(tmp_path, average, path):
    found = {"validation": 0.8} | ({} if average is None else {"average": average})
    (tmp_path / "run.json").write_text(json.dumps(found))
    assert runs.chosen(tmp_path) == tmp_path / path


def test_shipped_weights_take_half_the_room_and_say_the_same(tmp_path):
    torch.manual_seed(0)
    settings = classifier_settings(["pneumonia"], image_size=32, size="tiny")
    save_network(new_classifier(settings), settings, tmp_path / "whole.pt")
    runs.ship(tmp_path / "whole.pt", tmp_path / "model.pt")
    assert (tmp_path / "model.pt").stat().st_size < 0.51 * (tmp_path / "whole.pt").stat().st_size
    film = torch.rand(2, 1, 32, 32)
    (before, one), (after, other) = (read_classifier(tmp_path / name) for name in ("whole.pt", "model.pt"))
    assert before == after
    torch.testing.assert_close(other(film), one(film), atol=2e-3, rtol=0)


def test_a_probe_is_fitted_to_training_films_and_scored_on_each_other_part():
    rng = np.random.default_rng(0)
    kinds = {"train": 40, "validation": 20, "test": 20}
    items = {part: [{"image": f"{part}{n}", "patient_id": f"{part}{n}", "view": "AP" if n < 10 else "PA",
                     "labels": [float(n % 2), 0.0 if part == "train" else float(n % 2)]} for n in range(count)]
             for part, count in kinds.items()}  # fmt: skip
    vectors = {i["image"]: np.append(i["labels"][0], rng.normal(size=2)) for part in items.values() for i in part}
    for reading in probes.READINGS:
        rows = probes.read_labels(items, vectors, ["seen", "absent"], reading)
        assert [(row["label"], row["part"], row["films"]) for row in rows] == [
            ("seen", "validation", 20),
            ("seen", "test", 20),
        ]
        assert all(float(row["auroc"]) > 0.95 and float(row["within_view"]) > 0.95 for row in rows)


def test_tables_show_what_the_files_hold(tmp_path):
    folder = tmp_path / "runs" / "one"
    scores = folder / "view_test" / "evaluation"
    record = {"task": "view", "arm": "shipped", "how": "frozen", "fraction": 1.0, "seed": 3, "seconds": 9,
              "epoch": 2, "validation": 0.8}  # fmt: skip
    write(scores / "summary.csv", [{"label": "AP", "films": 50, "auroc": 0.9, "auroc_low": 0.8, "auroc_high": 0.95}])
    counts = {"sensitivity_count": 18, "sensitivity_films": 20, "specificity_count": 24, "specificity_films": 30}
    write(scores / "operating_points.csv", [{"label": "AP", "point": "youden", "sensitivity": 0.9, "specificity": 0.8,
                                             **counts}])  # fmt: skip
    (folder / "run.json").write_text(json.dumps(record))
    line = table.run_table(tmp_path / "runs").splitlines()[2]
    assert "| view | shipped | frozen | 100 % | 3 | AP | test | 50 | 0.900 [0.800, 0.950] |" in line
    assert "0.900, 0.800, 0.840" in line  # 42 of 50 films
    rows = [{"run": "hog", "config": seed, "task": "nih", "reading": "linear", "fraction": 0.1, "label": "Edema",
             "part": part, "auroc": value} for seed, value in enumerate((0.7, 0.9))
            for part in ("validation", "test")]  # fmt: skip
    write(tmp_path / "probes.csv", rows)
    assert "| nih | test | Edema | linear | hog | 0.800 ± 0.141 |" in table.probe_table(tmp_path / "probes.csv")
