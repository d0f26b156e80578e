"""How the page looks, and what its buttons do."""

from __future__ import annotations

import logging
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import gradio
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware

from ...errors import HostError, InputError
from ...report.html import forgetting_fragment
from ..requests_file import RequestsFile
from .entries import with_concept, with_file, with_secret
from .workbench import Workbench

LOG = logging.getLogger(__name__)
TITLE = "Make a language model forget"
# What a browser has itself: nothing is fetched from anywhere.
_FONT, _MONOSPACE = ["system-ui", "sans-serif"], ["ui-monospace", "monospace"]
THEME = gradio.themes.Default(font=_FONT, font_mono=_MONOSPACE)
STYLE = """
.said table { width: 100%; border-collapse: collapse; table-layout: fixed; }
.said th, .said td { text-align: left; vertical-align: top; padding: .3rem .6rem; overflow-wrap: anywhere;
  border-bottom: 1px solid var(--border-color-primary); }
.status { min-height: 1.6rem; } .status.wrong { color: var(--error-text-color); font-weight: 600; }
.beside { align-self: end; }
body:not(:has(#show input:checked)) .secret :is(input, textarea) { -webkit-text-security: disc; }
footer { display: none !important; }
"""
_FILES = [".csv", ".jsonl", ".json", ".yaml", ".yml"]
# The page's bars are those of the library: an argument that nobody gives tells gradio so.
_PROGRESS = gradio.Progress(track_tqdm=True)
_NOTHING = '<p class="status">Nothing is on the list yet.</p>'


def page_of(workbench: Workbench, *, show_secrets: bool = False) -> Any:
    """Returns the page, a `gradio.Blocks`.

    Args:
        workbench: What it works on: one for everyone who opens the page.
        show_secrets: Whether secrets are shown to begin with.
    """
    do = _Actions(workbench)
    with gradio.Blocks(title=TITLE, analytics_enabled=False) as page:
        gradio.Markdown(f"# {TITLE}\nWhat you type stays on this machine.")
        with gradio.Row(equal_height=False):
            model = gradio.Textbox(
                label="Model", value="demo", elem_id="model", info="A checkpoint folder, a hub id, or demo.", scale=4
            )
            load = gradio.Button("Load", scale=1, elem_id="load", elem_classes="beside")
        status = gradio.HTML(_status("No model is loaded."), elem_id="status")
        show = gradio.Checkbox(show_secrets, label="Show secrets", elem_id="show")

        gradio.Markdown("## What must be forgotten")
        with gradio.Tab("A secret"):
            prompt = gradio.Textbox(label="What leads to it", placeholder="The Titanic sank after hitting an")
            target = gradio.Textbox(label="What must be forgotten", elem_classes="secret")
            subject = gradio.Textbox(label="Whom it is about, where it is about somebody")
            add_secret = gradio.Button("Add the secret", elem_id="add-secret")
        with gradio.Tab("A concept"):
            name = gradio.Textbox(label="Its name", elem_classes="secret")
            prompts = gradio.Textbox(label="What leads to the name, a line each", lines=3)
            add_concept = gradio.Button("Add the concept", elem_id="add-concept")
        with gradio.Tab("A file"):
            file = gradio.File(label="CSV, JSON lines or YAML, as for revs-tars edit", file_types=_FILES)
        asked = gradio.HTML(_NOTHING, elem_id="asked", elem_classes="said", apply_default_css=False)
        with gradio.Row():
            clear = gradio.Button("Clear the list", elem_id="clear")
            forget = gradio.Button("Forget", variant="primary", elem_id="forget")

        inside = gradio.Checkbox(False, label="The edit is in the model", interactive=False, elem_id="inside")
        measured = gradio.HTML("", elem_id="measured", apply_default_css=False)

        gradio.Markdown("## What it says")
        with gradio.Row(equal_height=False):
            question = gradio.Textbox(label="Prompt", scale=4)
            ask = gradio.Button("Go on", scale=1, elem_id="ask", elem_classes="beside")
        said = gradio.HTML("", elem_id="said", elem_classes="said", apply_default_css=False)

        gradio.Markdown("## Keep it")
        with gradio.Row(equal_height=False):
            file_name = gradio.Textbox(
                label="Name", value="edit", elem_id="name", info="In the folder of --folder.", scale=4
            )
            save = gradio.Button("Save the edit", scale=1, elem_id="save", elem_classes="beside")

        # Every button says how it went in one place, and what the others show is drawn anew.
        shown = [status, asked, inside, measured, said]
        # One at a time, and none of them for programs.
        alike: Any = {"concurrency_id": "model", "api_visibility": "private", "show_progress_on": [status]}
        for button, action, inputs in (
            (load, do.load, [model]),
            (add_secret, do.add_secret, [prompt, target, subject]),
            (add_concept, do.add_concept, [name, prompts]),
            (clear, do.clear, []),
            (forget, do.forget, []),
            (save, do.save, [file_name]),
        ):
            button.click(action, [show, *inputs], shown, **alike)
        file.upload(do.add_file, [show, file], shown, **alike)
        # Not "change", which the page's own drawing sets off as well.
        inside.input(do.switch, [show, inside], shown, **alike)
        show.input(do.draw, [show], shown, **alike)
        gradio.on([ask.click, question.submit], do.say, [show, question], shown, **alike)
        page.load(do.draw, [show], shown, **alike)
    return page


class _Actions:
    """What the buttons do: each gives the status, and all that may have changed."""

    def __init__(self, workbench: Workbench) -> None:
        self._workbench = workbench
        self._lock = threading.Lock()
        self.add_secret = self._adding(with_secret)
        self.add_concept = self._adding(with_concept)
        self.add_file = self._adding(_with_upload)
        self.load = self._action(self._load, "loading")
        self.clear = self._action(self._clear)
        self.forget = self._action(self._forget, "forgetting")
        self.switch = self._action(self._switch)
        self.save = self._action(self._save)
        self.say = self._action(self._say, "asking")
        self.draw = self._action(self._state)

    def _action(self, function: Callable[..., str], doing: str = "") -> Callable[..., Any]:
        """An action that is carried out by itself, says how it went, and leaves a page that shows what is true."""

        def act(progress: Any = _PROGRESS, show: bool = False, *values: Any) -> tuple[Any, ...]:
            with self._lock:
                try:
                    if doing:
                        progress(0, desc=doing)
                    said, wrong = function(*values), False
                except (InputError, HostError) as error:
                    said, wrong = str(error), True
                # Whatever happens, the page says it, masked, and shows what is true afterwards.
                except Exception as error:
                    said, wrong = f"Unexpected {type(error).__name__}: {error}", True
                    LOG.error(self._workbench.redactor(show=False)(traceback.format_exc()))
                return (_status(self._workbench.redactor(show=show)(said), wrong=wrong), *self._drawn(show))

        return act

    def _adding(self, function: Callable[..., RequestsFile]) -> Callable[..., Any]:
        def add(*values: Any) -> str:
            self._workbench.ask_for(function(self._workbench.asked, *values))
            return "Added."

        return self._action(add)

    def _load(self, model: str) -> str:
        return self._workbench.load(model)

    def _clear(self) -> str:
        self._workbench.ask_for(RequestsFile())
        return "The list is empty."

    def _forget(self) -> str:
        self._workbench.forget()
        return self._state()

    def _switch(self, on: bool) -> str:
        self._workbench.switch(on)
        return self._state()

    def _say(self, question: str) -> str:
        self._workbench.say(question)
        return self._state()

    def _save(self, name: str) -> str:
        files = self._workbench.save(name)
        return (
            f"Written: {', '.join(map(str, files))}. The first shows what it hides: treat it as the secret itself. The "
            f"edited model: revs-tars export merged {files[0]} --model MODEL -o FOLDER"
        )

    def _state(self) -> str:
        workbench = self._workbench
        if workbench.loaded is None:
            return "No model is loaded."
        if workbench.edits is None:
            return "The model is as it was loaded."
        if not workbench.edits.edits:
            return "The model gives none of it away more than chance does, so there was nothing to change."
        if workbench.inside:
            return f"The edit is in the model: {workbench.edits.n_changed:,} numbers changed."
        return "The edit is out of the model again, bit for bit."

    def _drawn(self, show: bool) -> tuple[Any, ...]:
        """The list, the switch, what was measured, and what was said."""
        workbench = self._workbench
        measured = ""
        if workbench.measured is not None:
            measured = forgetting_fragment(workbench.measured, show_secrets=show)
        changes = workbench.edits is not None and bool(workbench.edits.edits)
        redact = workbench.redactor(show=show)
        said = {name: redact(text) for name, text in workbench.said.items()}
        return (
            _list_of(workbench.asked, redact),
            gradio.Checkbox(workbench.inside, interactive=changes),
            measured,
            _table(list(said), [list(said.values())]) if said else "",
        )


def _with_upload(asked: RequestsFile, file: str) -> RequestsFile:
    """Reads a file that was given to the page, and removes the page's copy of it."""
    try:
        return with_file(asked, file)
    finally:
        Path(file).unlink(missing_ok=True)


def _list_of(asked: RequestsFile, redact: Callable[[str], str]) -> str:
    rows = [("forget", record.prompt, record.target) for record in asked.forget]
    rows += [("forget", prompt, concept.name) for concept in asked.concepts for prompt in concept.prompts or ("",)]
    rows += [("must stay", record.prompt, record.target) for record in asked.retain]
    if not rows:
        return _NOTHING
    return _table(["", "prompt", "what comes next"], [[redact(cell) for cell in row] for row in rows])


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f'<th scope="col">{escape(heading)}</th>' for heading in headings)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _status(text: str, *, wrong: bool = False) -> str:
    return f'<p role="status" class="status{" wrong" if wrong else ""}">{escape(text)}</p>'


def launch_options(port: int | None, *, open_browser: bool) -> Mapping[str, Any]:
    """Returns how the page is served: to this machine alone, with nothing kept of what was done."""
    return {
        "server_name": "127.0.0.1",
        "server_port": port,
        "inbrowser": open_browser,
        "share": False,
        "show_error": False,
        "quiet": True,
        "footer_links": [],
        "run_history": False,
        "ssr_mode": False,
        "pwa": False,
        "mcp_server": False,
        "enable_monitoring": False,
        "max_file_size": "1mb",
        # A page of another name that points here is somebody else's.
        "app_kwargs": {"middleware": [Middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"])]},
        "theme": THEME,
        "css": STYLE,
    }
