"""The report in a real browser: it renders, says nothing on the console, fetches nothing, and fits a phone."""

import json

import pytest

from revs_tars_plugin import InputError
from revs_tars_plugin.report.html import write_report
from revs_tars_plugin.report.results import FORMAT, VERSION, read_result, result, write_result

SECRET, NAME = "jane.roe@example.org", "Jane Roe"
CONTROL = {"exposure, top": 1.4, "exposure, bottom": 1.6, "efficacy": 0.65}


def evaluation(*, redacted=False):
    def moment(shift):
        summary = {
            **dict.fromkeys(("efficacy", "generality", "logit lens", "quantization, 4 bits", "specificity"), shift),
            **dict.fromkeys(("still generated", "concept, worst"), 1 - shift),
            **{"exposure, top": 6 - 5 * shift, "exposure, bottom": 2 * shift, "min-k": 1 - shift / 2, "privleak": 0.1},
            **{"kl_median": 1e-3, "kl_mean": 2e-3, "top1_agreement": 0.98, "unlearning_score": shift},
        }
        settings = {"k": 100, "seed": 0, "n_samples": 20, "attacks": ["logit lens"], "secrets": 2}
        ranks = [[900, 50 + round(500 * shift), round(1000 * shift)], [800, 20, round(2000 * shift)]]
        values = [1e-9, 0.0, 1e-4, 1e-3, 5e-3, 0.1] * 20
        return {"summary": summary, "secrets": [], "concepts": [], "settings": settings, "ranks": ranks}, values

    (before, _), (after, values) = moment(0.0), moment(0.9)
    text = {"kind": "forgotten", "prompt": f"The address of {NAME} is", "target": SECRET, "subject": NAME}
    said = {"before": f" {SECRET}. Write soon.", "after": " unknown to <b>all</b> of us"}
    return result(
        "evaluation",
        {
            "model": "tiny",
            "edits": [
                {
                    "method": "REVS",
                    "settings": {"n_neurons": 30, "layers": [1, 2]},
                    "n_changed": 1234,
                    "layers": [{"layer": 1, "neurons": 3, "rank-ones": 0}, {"layer": 2, "neurons": 5, "rank-ones": 0}],
                }
            ],
            "texts": [{**text, **said}],
            "before": {**before, "divergences": []},
            "after": {**after, "divergences": values, "controls": {"never learned": CONTROL}},
        },
        redacted=redacted,
    )


def comparison():
    def row(method, efficacy, cost, seconds, error=None):
        figures = {} if error else {"efficacy": efficacy, "kl_median": cost, "specificity": 0.5}
        return {"method": method, "figures": figures, "seconds": seconds, "error": error}

    rows = [row("no edit", 0.0, 0.0, None), row("REVS", 1.0, 2e-3, 15.0), row("FT", 0.6, 1e-2, 8.0)]
    rows.append(row("ROME", 0, 0, None, error="ValueError: no subject"))
    counts = {"model": "tiny", "host": "release", "k": 100, "forgotten": 10, "retained": 24}
    return result("comparison", {**counts, "rows": rows}, redacted=True)


def benchmark(name, **changes):
    """Four models, with or without a retain-only one, as `bench` writes them."""
    rows = {
        "retain-only model": {"exposure, top": 1.4, "distance": 0.0},
        "unedited": {"exposure, top": 6.0, "distance": 0.5, "kl_median": 0.0},
        "REVS": {"exposure, top": 1.2, "distance": 0.1, "kl_median": 4e-3, "seconds": 20.0},
        "NPO, 1e-05": {"exposure, top": 3.0, "distance": 0.3, "kl_median": 2e-2, "seconds": 300.0},
    }
    content = {"model": "tiny", "benchmark": name, "title": f"{name}: 12 records", "forgotten": 12, "retained": 24}
    return result("benchmark", {**content, "rows": rows, **changes}, redacted=True)


@pytest.fixture
def page(window, tmp_path):
    """Opens the report; gives the page with what it fetched and what it said on the console."""

    def page(width=1100, scheme="light", results=None):
        path = tmp_path / "report.html"
        write_report(results or [evaluation(), comparison()], path)
        opened = window(width, scheme)
        opened.goto(path.as_uri())
        opened.address = path.as_uri()
        return opened

    return page


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1100])
def test_it_renders_without_network_or_console(page, width, scheme):
    opened = page(width, scheme)
    assert opened.said == []
    assert opened.fetched == [opened.address]
    assert opened.evaluate("document.documentElement.scrollWidth") == width
    plots = opened.locator("figure svg")
    assert plots.count() == 8
    for index in range(plots.count()):
        box = plots.nth(index).bounding_box()
        assert box["width"] > 0.7 * min(width, 500)
        assert box["height"] > 100


def test_every_plot_says_in_words_and_numbers_what_it_shows(page):
    opened = page()
    for figure in opened.locator("figure").all():
        label = figure.locator('[role="img"]').get_attribute("aria-label")
        assert len(label) > 40
        assert figure.locator("figcaption").inner_text() in label
        figure.locator("summary").click()
        assert figure.locator("tr").count() > 1
    ranks = opened.locator("#ranks tr").all_inner_texts()
    assert ranks == ["layer\tmedian rank before\tmedian rank after", "0\t800\t800", "1\t20\t20", "2\t0\t900"]


def test_text_is_legible_in_the_dark(page):
    """Plots take the page's colours: bright on dark, dark on bright, from the same file."""
    found = {}
    for scheme in ("light", "dark"):
        opened = page(scheme=scheme)
        colours = opened.evaluate(
            """() => [getComputedStyle(document.body).backgroundColor,
                      getComputedStyle(document.querySelector('figure svg text')).fill,
                      getComputedStyle(document.querySelector('figcaption')).color]"""
        )
        found[scheme] = [_luminance(colour) for colour in colours]
    for ground, *inks in found.values():
        assert all((max(ground, ink) + 0.05) / (min(ground, ink) + 0.05) > 4.5 for ink in inks)  # WCAG's AA
    assert found["dark"][0] < 0.1
    assert found["light"][0] > 0.8


def _luminance(colour):
    red, green, blue = (int(part) / 255 for part in colour.removeprefix("rgb(").removesuffix(")").split(","))
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in (red, green, blue)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_what_a_model_says_is_text_and_the_secret_is_masked(page):
    opened = page()
    cells = opened.locator(".texts tbody td").all_inner_texts()
    assert cells[1] == "The address of [name] is"
    assert set(cells[2]) == {"•"}
    assert cells[3].startswith("••••••••")
    assert cells[3].endswith("Write soon.")
    assert cells[4] == "unknown to <b>all</b> of us"
    content = opened.content()
    assert SECRET not in content
    assert NAME not in content


def test_identifiers_are_unique(page):
    content = evaluation()
    content["edits"] *= 2
    opened = page(results=[content, comparison()])
    ids = opened.evaluate("[...document.querySelectorAll('[id]')].map(element => element.id)")
    assert len(ids) == len(set(ids)) > 50


def test_one_kind_of_result_is_enough(page):
    assert page(results=[comparison()]).locator("figure").count() == 1
    assert page(results=[evaluation()]).locator("figure").count() == 7


def test_benchmarks_are_drawn_as_many_as_there_are(page):
    utility = {"forget_quality": 0.4, "model_utility": 0.5, "seconds": 3.0, "distance": 0.2}
    tofu = benchmark("TOFU", rows={"unedited": {"forget_quality": 1e-8, "model_utility": 0.52}, "REVS": utility})
    opened = page(results=[benchmark("LUME"), tofu])
    assert opened.said == [] and opened.fetched == [opened.address]
    assert opened.locator("figure svg").count() == 4
    ids = opened.evaluate("[...document.querySelectorAll('[id]')].map(element => element.id)")
    assert len(ids) == len(set(ids))


def test_a_benchmark_says_who_is_nearest_whoever_it_is(tmp_path):
    won = {
        **benchmark("LUME")["rows"],
        "NPO, 1e-05": {"exposure, top": 1.4, "distance": 0.0, "kl_median": 1, "seconds": 9},
    }
    write_report([benchmark("LUME"), benchmark("SSN", rows=won)], tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text()
    assert "best by exposure, top is REVS (1.2) at kl_median 0.004" in text
    assert "best by exposure, top is NPO, 1e-05 (1.4) at kl_median 1." in text
    assert "best by distance is NPO, 1e-05 (0) at seconds 9." in text
    assert '<th scope="col">retain-only model</th>' in text


def test_a_benchmark_where_nothing_was_run_has_its_table_alone(tmp_path):
    rows = {"unedited": {"exposure, top": 6.0, "kl_median": 0.0}}
    write_report([benchmark("LUME", rows=rows)], tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text()
    assert "<svg" not in text and "LUME: 12 records" in text


def test_what_a_model_says_that_never_learned_the_secrets_stands_beside(tmp_path):
    write_report([evaluation()], tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text()
    assert "before: 6, never learned: 1.4<" in text
    assert "from the top before 6.00, after 1.50, never learned 1.40." in text
    assert "<td>generality @100</td><td>0</td><td>0.9</td><td></td>" in text
    assert "<td>privleak</td><td>0.1</td><td>0.1</td><td></td>" in text
    content = evaluation()
    content["after"]["controls"] = {}
    write_report([content], tmp_path / "r.html")
    assert "never learned:" not in (tmp_path / "r.html").read_text()


def test_secrets_are_shown_where_asked_for(tmp_path):
    write_report([evaluation()], tmp_path / "r.html", show_secrets=True)
    assert SECRET in (tmp_path / "r.html").read_text()


def test_what_cannot_be_drawn_is_named(tmp_path):
    with pytest.raises(InputError, match="Two results are evaluations"):
        write_report([evaluation(), evaluation()], tmp_path / "r.html")
    with pytest.raises(InputError, match="written without the secrets"):
        write_report([evaluation(redacted=True)], tmp_path / "r.html", show_secrets=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        write_report([evaluation()], tmp_path / "file" / "r.html")
    assert not (tmp_path / "r.html").exists()


def test_results_go_through_their_file(tmp_path):
    write_result(tmp_path / "r.json", evaluation())
    assert read_result(tmp_path / "r.json") == json.loads((tmp_path / "r.json").read_text())
    for text, message in (
        ("{", "is no JSON"),
        ("[]", "is no result"),
        (json.dumps({"format": FORMAT, "kind": "evaluation", "version": VERSION + 1}), "update revs-tars-plugin"),
        (json.dumps({"format": FORMAT, "kind": "comparison", "version": VERSION}), 'has no "model"; it was changed'),
    ):
        (tmp_path / "r.json").write_text(text)
        with pytest.raises(InputError, match=message):
            read_result(tmp_path / "r.json")
