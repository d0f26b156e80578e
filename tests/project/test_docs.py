"""The generated documents are what the code says now, and the README names what there is."""

import json
import re
import runpy
from pathlib import Path

import yaml
from typer.main import get_command

from revs_tars_plugin.host.registry import REGISTERED
from revs_tars_plugin.hyperparams import packaged_hparams

ROOT = Path(__file__).parents[2]


def test_the_settings_reference_is_up_to_date():
    made = runpy.run_path(str(ROOT / "docs" / "make" / "hparams.py"))["reference"]()
    assert (ROOT / "docs" / "reference" / "hparams.md").read_text(encoding="utf-8") == made, "run make docs"


def test_every_key_of_every_yaml_is_in_the_reference():
    documented = set(
        re.findall(r"^\| `(\w+)` \|", (ROOT / "docs" / "reference" / "hparams.md").read_text(), flags=re.M)
    )
    for algorithm in REGISTERED:
        for path in packaged_hparams(algorithm).glob("*.yaml"):
            assert set(yaml.safe_load(path.read_text())) <= documented


def test_every_command_has_its_page():
    from revs_tars_plugin.cli.app import app

    page = (ROOT / "docs" / "reference" / "commands.md").read_text(encoding="utf-8")
    names = [command.name or command.callback.__name__ for command in app.registered_commands]
    for name in (*names, *(group.name for group in app.registered_groups)):
        assert f"## `revs-tars {name}`" in page, "run make docs"
    for name, command in get_command(app).commands.items():
        section = page.partition(f"## `revs-tars {name}`\n")[2].partition("\n## ")[0]
        for option in (each for each in command.params if each.param_type_name == "option" and not each.hidden):
            assert option.opts[0] in section, (name, option.opts, "run make docs")


def test_links_and_commands_of_the_documents_lead_somewhere():
    for page in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), ROOT / "benchmarks" / "README.md"):
        text = page.read_text(encoding="utf-8")
        for link in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", text):
            assert link.startswith("http") or (page.parent / link).exists(), (page.name, link)
        for file in re.findall(r"`([\w/]+\.py)`", text):
            assert any((root / file).is_file() for root in (ROOT, ROOT / "revs_tars_plugin", page.parent)), (page, file)
        for script in re.findall(r"python ((?:benchmarks|examples|docs)/[\w/]+\.py)", text):
            assert (ROOT / script).is_file(), (page.name, script)


def test_what_the_pages_show_was_printed_by_this_code():
    figures = runpy.run_path(str(ROOT / "docs" / "make" / "figures.py"))
    stamp = json.loads(figures["STAMP"].read_text(encoding="utf-8"))
    assert stamp["code"] == figures["code"](), "what computes or measures an edit has changed: run make figures"
    for page in figures["PAGES"]:
        assert f"`{stamp['commit']}`" in page.read_text(encoding="utf-8")


def test_a_comment_makes_no_figure_old_and_code_does(tmp_path):
    figures = runpy.run_path(str(ROOT / "docs" / "make" / "figures.py"))
    code = figures["code"]
    code.__globals__["ROOT"] = tmp_path
    module = tmp_path / "revs_tars_plugin" / "revs" / "steps.py"
    module.parent.mkdir(parents=True)
    module.write_text('"""Steps."""\n\n\ndef step(x):\n    """Goes."""\n    return x + 1\n')
    before = code()
    module.write_text('"""Steps, and more."""\n\n\ndef step(x):\n    """Goes on."""\n    return x + 1  # further\n')
    assert code() == before
    module.write_text('"""Steps."""\n\n\ndef step(x):\n    """Goes."""\n    return x + 2\n')
    assert code() != before
