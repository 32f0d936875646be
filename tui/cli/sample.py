"""``nd sample``: a generator's samples, drawn again."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from ndissect.engine.run.options import Options
from ndissect.store.errors import WrongUse
from ndissect.tui.cli.options import ForceOption, JsonOption, StoreOption
from ndissect.tui.cli.run_options import takes_options

# The samples are those of the store, and its labeller is not asked.
_FIELDS = "weights weights_key weights_prefix anyway device batch_size"
_NUMBERS = re.compile(r"\d{1,9}(-\d{1,9})?(,\d{1,9}(-\d{1,9})?)*", re.ASCII)
# Pictures of one sheet.
_MOST = 1_024


@takes_options(only=_FIELDS, first="words store to latents")
def sample(
    options: Options,
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[STORE] [NUMBERS]...", help="A store, and numbers of its samples: 17, 0-15, 3,5,8."),
    ] = None,
    store: StoreOption = None,
    to: Annotated[
        Path | None, typer.Option("--output", "-o", help="The PNG. Default: a file of the cache, drawn anew each time.")
    ] = None,
    latents: Annotated[
        Path | None,
        typer.Option("--latents", metavar="FILE.npy", help="Write the latents of these samples, else of all."),
    ] = None,
    force: ForceOption = False,
    show: Annotated[bool, typer.Option("--open", help="Open the picture in an image viewer.")] = False,
    json: JsonOption = False,
) -> None:
    """Draw a generator's samples again: one as a picture, several as a sheet."""
    path, numbers = _words(words or [], store)
    if not numbers and latents is None:
        raise WrongUse("no sample is named", "nd sample STORE 17, or 0-15; --latents FILE.npy writes all latents")
    if not numbers and (to is not None or show):
        raise WrongUse("no sample is named that could be drawn", "nd sample STORE 17 -o x.png")
    if len(numbers) > _MOST:
        raise WrongUse(f"{len(numbers)} samples are too many for a sheet", f"name up to {_MOST}")

    from ndissect.engine.experiments.drawn_samples import open_sampler
    from ndissect.engine.experiments.generated import GeneratorRequest
    from ndissect.engine.experiments.picture_files import sheet, write_picture
    from ndissect.tui.cli import output
    from ndissect.tui.cli.console import TerminalConsole
    from ndissect.tui.cli.drawn_pictures import picture_path, show_picture

    if latents is not None:
        output.confirm_replace(latents, force)
    name = "-".join(map(str, numbers if len(numbers) == 1 else numbers[:1] + numbers[-1:]))
    picture = picture_path(to, path, f"sample-{name}", force=force) if numbers else None
    written = [] if picture is None else [picture]
    with open_sampler(GeneratorRequest(path, None, options), TerminalConsole()) as sampler:
        sampler.check(numbers)
        for note in sampler.notes:
            output.tell(note)
        if picture is not None:
            drawn = sampler.pictures(numbers)
            write_picture(picture, drawn[0] if len(drawn) == 1 else sheet(drawn))
        if latents is not None:
            sampler.write_latents(latents, numbers or range(sampler.count))
            written.append(latents)
        if json:
            said = {"path": picture, "latents": latents, "samples": numbers, "of": sampler.count}
            output.print_json({"store": path, **said, "size": list(sampler.generator.size)})
        else:
            for file in written:
                output.emit_line(str(file))
    if show and picture is not None:
        show_picture(picture)


def _words(words: list[str], given: Path | None) -> tuple[Path, list[int]]:
    """The store and the numbers that the words name; WrongUse for what is neither."""
    from ndissect.store.files import SUFFIX, find_store

    numbers: list[int] = []
    store = given
    for i, word in enumerate(words):
        if not _NUMBERS.fullmatch(word):
            if i or store is not None or not (word.endswith(SUFFIX) or Path(word).exists()):
                raise WrongUse(f"'{word}' is no number of a sample", "write 17, 0-15 or 3,5,8")
            store = Path(word)
            continue
        for part in word.split(","):
            first, _, last = part.partition("-")
            if int(last or first) < int(first) or int(last or first) - int(first) >= _MOST:
                raise WrongUse(f"'{part}' is no range of up to {_MOST} samples", "write 0-15 for the first 16")
            numbers.extend(range(int(first), int(last or first) + 1))
    return find_store(store), numbers
