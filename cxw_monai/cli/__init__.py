"""The command ``cxw-monai``: one verb a module, each with ``add_arguments(parser)`` and ``run(arguments) -> int``.

What a verb needs is imported when it runs, so that help comes at once.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from types import ModuleType

from cxw_monai.io.files.disk_errors import disk_message
from cxw_monai.io.files.printable import printable

__all__ = ["VERBS", "build_parser", "main", "name_and_value"]

VERBS = {
    "check": "look through a folder of films before training on it",
    "prepare": "manifest, masks and splits of a public data set, or of any folder",
    "render": "radiographs of virtual patients, with masks, landmarks and findings",
    "segment": "masks of lungs and lung fields, mediastinum, heart and clavicles",
    "classify": "probability of each class, and decisions at a classifier's operating points",
    "locate": "landmarks of films, their confidence, and measurements",
    "compare": "two classifiers on the same films: difference of AUROC with its interval",
    "compare-encoders": "any encoders beside ours on your films: probes and tests of places",
    "embed": "one embedding per film",
    "index": "an index of films for search: resumable, by any number of processes and machines",
    "search": "the films of an index most like a film, or like a part of it",
    "duplicates": "films that are there twice, in one set or in two (a train and test leak)",
    "probe": "what a linear classifier reads off frozen embeddings",
    "report": "one page on a checkpoint: verdict, tests, and what it sees and expects",
    "explore": "a local page on which a world model is tried out on films",
    "pseudo-label": "masks of unlabelled films where several models agree",
    "import-weights": "an official checkpoint to this package's weights",
    "package": "a bundle as a verified zip, or for the Hugging Face Hub",
    "export": "a model as TorchScript and ONNX that need nothing of this package",
    "bundle": "print a bundle's folder",
    "serve": "answer an archive's films with DICOM SEG and SR",
    "label": "serve segmentation and classification through MONAI Label",
}
"""Each verb and what it gives; its module has the same name."""

_DESCRIPTION = "Self-supervised world models of radiographs. Models are trained with: python -m monai.bundle run"
_EPILOG = """\
examples:
  cxw-monai check films/ --output quality
  cxw-monai segment film.dcm --output masks
  cxw-monai embed films/ --output embeddings
  cxw-monai VERB --help

exit status:
  0  done
  1  done, but look at the output: films could not be read, segmented, classified or located, or were flagged (check),
     damaged files were left out (prepare), copies were found (duplicates), or an error came up on the way (embed)
  2  wrong arguments or files; one line says what to do

tab completion: pip install "cxw-monai[completion]", then: eval "$(cxw-monai --print-completion bash)"
"""


def name_and_value(text: str) -> tuple[str, str]:
    """A `type` for argparse: `NAME=VALUE` in two."""
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE, got {text!r}")
    return name, value


def _module(verb: str) -> ModuleType:
    return importlib.import_module(f"{__name__}.{verb.replace('-', '_')}")


def build_parser(filled: Collection[str] = tuple(VERBS)) -> argparse.ArgumentParser:
    """The parser of the command.

    Args:
        filled: verbs that get their arguments; the others are listed only, which spares their imports.
    """
    parser = argparse.ArgumentParser(
        prog="cxw-monai",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    parser.add_argument("--print-completion", choices=("bash", "zsh", "tcsh"), help="print a shell's completion script")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", title="verbs")
    for verb, gives in VERBS.items():
        if verb not in filled:
            verbs.add_parser(verb, help=gives)
            continue
        module = _module(verb)
        command = verbs.add_parser(
            verb, help=gives, description=module.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        module.add_arguments(command)
    return parser


def _completion(shell: str) -> str:
    """The completion script of a shell.

    Raises:
        ValueError: shtab isn't installed.
    """
    try:
        import shtab
    except ImportError as error:
        raise ValueError('completion needs shtab: pip install "cxw-monai[completion]"') from error
    parser = build_parser()
    commands = [parser]
    while commands:
        for action in commands.pop()._actions:
            if isinstance(action, argparse._SubParsersAction):
                commands += action.choices.values()
            elif action.type is Path:
                action.complete = shtab.FILE  # type: ignore[attr-defined]
    return shtab.complete(parser, shell)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    given = list(sys.argv[1:] if argv is None else argv)
    parser = build_parser(given[:1])
    arguments = parser.parse_args(given)
    try:
        if arguments.print_completion:
            print(_completion(arguments.print_completion))
            return 0
        if arguments.version:
            from cxw_monai import __version__

            print(__version__)
            return 0
        if arguments.verb is None:
            parser.error("give a verb; --help lists them")
        return _module(arguments.verb).run(arguments) or 0
    except (OSError, ValueError) as error:  # all errors that a user can mend are of these kinds
        said = disk_message(error) if isinstance(error, OSError) else None
        print(f"error: {printable(said or error)}", file=sys.stderr)
        return 2
