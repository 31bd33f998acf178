"""A local page on which a network is tried out on films: what it sees, and what it expects. It needs Gradio.

Nothing leaves the machine, and nothing is loaded from elsewhere. Pictures are sent inside the page; an uploaded file is
read once and deleted, and no log names it.
"""

from __future__ import annotations

import html
import io
import logging
import os
import signal
import tempfile
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from matplotlib import colormaps
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from cxw_monai.io import RadiographError, read_radiograph
from cxw_monai.metrics.world.films import DETAIL
from cxw_monai.tasks.pages import data_url
from cxw_monai.transforms.whole_film import whole_film

from .components import token_masks
from .pictures import token_map
from .settings import SeeingSettings
from .sight import Expectation, Sight, block_of, open_sight, square
from .sight_pictures import heat_map, principal_colours

__all__ = ["build_page", "need_gradio", "read_film", "serve"]

HOST = "127.0.0.1"
SIDE = 176  # px of a picture on the page
CROP = 0.55  # of the film's sides
KNOWN = 64  # films that principal components are taken from

logger = logging.getLogger(__name__)


def read_film(path: str | os.PathLike[str], size: tuple[int, int], reader: dict[str, Any] | None = None) -> Tensor:
    """A film as `WorldFilms` holds it, uint8 `[1, 2 H, 2 W]`.

    Raises:
        RadiographError: it can't be read.
    """
    film = read_radiograph(path, **{"min_size": 16, **(reader or {})}).array
    return (whole_film(film, (DETAIL * size[0], DETAIL * size[1])) * 255).round().byte()


def _picture(image: Tensor | np.ndarray) -> str:
    """A grey `[1, H, W]` or coloured `[H, W, 3]` image in [0, 1] as the source of an `img`."""
    pixels = np.asarray(image)
    pixels = np.rint(255 * np.clip(pixels[0] if pixels.shape[0] == 1 else pixels, 0, 1)).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BILINEAR).save(stream, "PNG")
    return data_url(stream.getvalue(), "png")


def _strip(pictures: Sequence[tuple[str, Tensor | np.ndarray]], note: str = "") -> str:
    """Pictures beside each other, each below its title."""
    cells = "".join(
        f'<figure style="margin:0 10px 10px 0"><figcaption style="font-size:13px">{html.escape(title)}</figcaption>'
        f'<img width="{SIDE}" height="{SIDE}" alt="{html.escape(title)}" src="{_picture(image)}"></figure>'
        for title, image in pictures
    )
    return f'<div style="display:flex;flex-wrap:wrap">{cells}</div><p>{html.escape(note)}</p>'


def _overlaid(image: Tensor, heat: Tensor) -> np.ndarray:
    """A film `[1, H, W]` below a map `[H, W]` in [0, 1], `[H, W, 3]`."""
    colours = colormaps["inferno"](heat.numpy())[..., :3]
    return 0.45 * image[0].numpy()[..., None] + 0.55 * colours


class Views:
    """What the page shows of a film, as HTML.

    Args:
        sight: the network and what belongs to it.
        settings: of the run that made it, for its masks.
    """

    def __init__(self, sight: Sight, settings: SeeingSettings) -> None:
        self.sight, self.settings = sight, settings
        self.known = sight.world.tokens(sight.films.first(KNOWN).whole())

    def seen(self, film: np.ndarray) -> str:
        """The film, its tokens' principal components, its surprise, and the nearest films."""
        sight, image = self.sight, whole(film)
        colours = principal_colours(sight.world.tokens(image[None]), sight.world.grid, self.known)[0]
        large = F.interpolate(torch.from_numpy(colours).permute(2, 0, 1)[None], sight.world.size, mode="bilinear")[0]
        maps = sight.surprise(image[None])
        score = sight.surprise_scores(maps)
        share = float(sight.usual.share_below(score))
        places, likeness = (found[0].tolist() for found in sight.nearest(image[None]))
        nearest = [
            (f"film {place + 1}: {value:.2f}", sight.films.whole([place])[0])
            for place, value in zip(places, likeness, strict=True)
        ]
        what = "Surprise" if "local" in sight.world.predicts else "Distance from the usual (no predictor)"
        note = (
            f"{what}: {float(score):+.2f} standard deviations, more than {share:.0%} of the {len(sight.films)} films."
        )
        heat = _overlaid(image, heat_map(maps, sight.world.size, sight.most)[0])
        pictures: list[tuple[str, Tensor | np.ndarray]]
        pictures = [("film", image), ("principal components", large.permute(1, 2, 0).numpy()), ("surprise", heat)]
        return _strip(pictures, note) + "<h4>Nearest films of the folder</h4>" + _strip(nearest)

    def masks(self, film: np.ndarray, draw: float) -> str:
        """Which tokens are hidden in training, in one draw."""
        sampler = token_masks(self.settings.model_copy(update={"seed": int(draw)}), self.sight.world)  # type: ignore[arg-type]
        drawn, image = sampler.sample(1), whole(film)
        pictures: list[tuple[str, Tensor | np.ndarray]] = []
        for title, index in (("in sight", drawn.context), ("to predict", drawn.target)):
            shown = token_map(index[0], sampler.grid, self.sight.world.size)
            pictures.append((title, image.numpy() * (0.15 + 0.85 * shown)))
        return _strip(pictures)

    def block(self, film: np.ndarray, row: float, column: float) -> str:
        """What is expected in a hidden block."""
        return self._expected(
            "local", lambda: self.sight.hidden_block(whole(film), block_of(self.sight.world.grid, row, column))
        )

    def crop(self, film: np.ndarray, row: float, column: float, other_row: float, other_column: float) -> str:
        """What is expected of another crop."""
        given, wanted = square(row, column, CROP), square(other_row, other_column, CROP)
        return self._expected("global", lambda: self.sight.other_crop(torch.from_numpy(film), given, wanted))

    def exposure(self, film: np.ndarray, brightness: float, contrast: float, gamma: float, blur: float) -> str:
        """What is expected of the film as it was."""
        action = torch.tensor([brightness, contrast, gamma, blur, 0.0])
        return self._expected("domain", lambda: self.sight.other_exposure(whole(film), action))

    def _expected(self, objective: str, make: Callable[[], Expectation]) -> str:
        if objective not in self.sight.world.predicts:
            return f"<p>The network has not learned to predict this (objective {objective}).</p>"
        found = make()
        best, reached = found.psnr
        pictures = [
            ("seen", found.given),
            ("what is there", found.truth),
            (f"the same, decoded: {best:.1f} dB", found.decoded_truth),
            (f"predicted, decoded: {reached:.1f} dB", found.decoded_prediction),
        ]
        return _strip(pictures)


def whole(film: np.ndarray) -> Tensor:
    """A film of `read_film` at the network's size, `[1, H, W]` in [0, 1]."""
    return F.avg_pool2d(torch.from_numpy(film)[None].float() / 255, DETAIL)[0]


def build_page(sight: Sight, settings: SeeingSettings) -> Any:
    """The page, a `gradio.Blocks`."""
    import gradio as gr

    views = Views(sight, settings)

    def uploaded(path: str | None) -> tuple[np.ndarray, None]:
        try:
            film = read_film(str(path), sight.world.size, settings.reader())
        except RadiographError as error:  # its message names the file
            raise gr.Error(f"{error.reason}; {error.remedy}", print_exception=False) from None
        finally:
            if path is not None:
                Path(path).unlink(missing_ok=True)
        return film.numpy(), None

    def of_folder(number: float) -> np.ndarray:
        return sight.films.pixels[int(number) - 1].numpy()

    def place(label: str, value: float = 0.5) -> Any:
        return gr.Slider(0, 1, value, step=0.05, label=label)

    with gr.Blocks(title="What the world model sees", analytics_enabled=False, delete_cache=(60, 60)) as page:
        gr.Markdown("## What the world model sees and expects\nResearch only; not a medical device.")
        film = gr.State(of_folder(1))
        with gr.Row():
            number = gr.Slider(1, len(sight.films), 1, step=1, label="film of the folder", elem_id="number")
            upload = gr.File(label="or drop a film (DICOM, PNG, JPEG, ...)", height=120, elem_id="upload")
        with gr.Tab("What it sees"):
            seen = gr.HTML(elem_id="seen")
            draw = gr.Slider(0, 50, 0, step=1, label="masks of training: draw", elem_id="draw")
            masks = gr.HTML(elem_id="masks")
        with gr.Tab("A hidden block"):
            with gr.Row():
                block_at = [place("from top to bottom"), place("from left to right")]
            block = gr.HTML(elem_id="block")
        with gr.Tab("Another crop"):
            with gr.Row():
                crop_at = [place("crop that is seen: down", 0.2), place("right", 0.2)]
                crop_at += [place("crop that is predicted: down", 0.8), place("right", 0.2)]
            crop = gr.HTML(elem_id="crop")
        with gr.Tab("Another exposure"):
            with gr.Row():
                dials = [
                    gr.Slider(0.6, 1.4, 0.8, step=0.05, label="brightness", elem_id="brightness"),
                    gr.Slider(0.6, 1.4, 1.0, step=0.05, label="contrast"),
                    gr.Slider(0.5, 2.0, 1.0, step=0.05, label="gamma"),
                    gr.Slider(0.0, 2.0, 0.0, step=0.1, label="blur, px"),
                ]
            exposure = gr.HTML(elem_id="exposure")
        upload.upload(uploaded, upload, [film, upload], api_visibility="private")
        gr.on([number.change], of_folder, number, film, api_visibility="private")
        for show, dials_of, target in (
            (views.seen, [], seen),
            (views.masks, [draw], masks),
            (views.block, block_at, block),
            (views.crop, crop_at, crop),
            (views.exposure, dials, exposure),
        ):
            events = [page.load, film.change, *(dial.change for dial in dials_of)]
            gr.on(events, show, [film, *dials_of], target, api_visibility="private", show_progress="hidden")
    return page


def _stop(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def need_gradio() -> None:
    """Raises a ValueError where Gradio isn't installed."""
    if find_spec("gradio") is None:
        raise ValueError('the page needs Gradio: pip install "cxw-monai[explore]"')


def serve(settings: SeeingSettings) -> None:
    """Serve the page to this machine until it is interrupted.

    Raises:
        ValueError: Gradio isn't installed; see also `open_sight`.
        OSError: the port is taken.
    """
    need_gradio()
    sight = open_sight(settings)
    signal.signal(signal.SIGTERM, _stop)
    with tempfile.TemporaryDirectory(prefix="cxw_explore_") as uploads:
        os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_TEMP_DIR": uploads, "HF_HUB_OFFLINE": "1"}
        page = build_page(sight, settings)
        page.launch(
            server_name=HOST,
            server_port=settings.port,
            share=False,
            prevent_thread_lock=True,
            quiet=True,
            footer_links=[],
            ssr_mode=False,
            max_file_size="500mb",
        )
        logger.info("http://%s:%d (Ctrl-C ends it)", HOST, settings.port)
        page.block_thread()
