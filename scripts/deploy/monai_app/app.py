"""A MONAI Deploy application (MAP): the DICOM films of a folder in, DICOM SEG and SR out, by the bundles' inference.

The SDK's own operators make volumes of series and leave out window and scale; here each film is a file that this
package reads. Which models: environment variable CXW_MODELS, with commas between them (default chexworld_segmentation);
they are what `cxw-monai serve --model` takes.

    python scripts/deploy/monai_app/app.py --input FILMS --output DIR     # needs monai-deploy-app-sdk 4
    monai-deploy package scripts/deploy/monai_app --config scripts/deploy/monai_app/app.yaml --tag cxw_monai \\
        --platform x86_64

`answers.json` in the output says of each file what became of it.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from monai.deploy.conditions import CountCondition
from monai.deploy.core import AppContext, Application, Fragment, Operator, OperatorSpec

from cxw_monai.service.answers import Answerer
from cxw_monai.service.folders import answer_folder


class FilmOperator(Operator):
    """Answers every film of a folder.

    Args:
        fragment: the application.
        models: see `Answerer`.
        source: folder of the films.
        output: folder of the results.
    """

    def __init__(
        self, fragment: Fragment, *args: Any, models: list[str], source: Path, output: Path, **how: Any
    ) -> None:
        self.models, self.source, self.output = models, source, output
        super().__init__(fragment, *args, **how)

    def setup(self, spec: OperatorSpec) -> None:
        """No ports: films come from a folder and results go to one."""

    def compute(self, op_input: Any, op_output: Any, context: Any) -> None:
        """Answer the films; once."""
        device = "cuda" if torch.cuda.is_available() else "cpu"
        states = answer_folder(Answerer(self.models, device), self.source, self.output)
        (self.output / "answers.json").write_text(json.dumps(states, indent=1), encoding="utf-8")


class FilmApplication(Application):
    """One operator."""

    def compose(self) -> None:
        """Make the operator from the paths that the SDK was given (HOLOSCAN_INPUT_PATH, ..., or the command line)."""
        paths: AppContext = Application.init_app_context(self.argv)
        models = os.environ.get("CXW_MODELS", "chexworld_segmentation").split(",")
        source, output = Path(paths.input_path), Path(paths.output_path)
        once = CountCondition(self, 1)
        self.add_operator(FilmOperator(self, once, models=models, source=source, output=output, name="films"))


if __name__ == "__main__":
    FilmApplication().run()
