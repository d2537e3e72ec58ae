import base64
import io
import re

import numpy as np
from PIL import Image

from inandout.evaluation.paired_test import Difference
from inandout.reporting.comparison_figures import forest_plot, learning_curve_plot
from inandout.reporting.page import Section, html_page, markdown_page
from inandout.reporting.paper_results import Estimate

TEXT = "A **bold** word & `code`.\n\n| a | b |\n| - | - |\n| **1** | x<y |\n\n- one\n- two\n\n```\nrun --me\n```"


def test_a_page_contains_its_text_and_images_and_refers_to_no_file() -> None:
    image = np.full((8, 8, 3), 77, np.uint8)
    figure = forest_plot({"a against b": Difference(0.1, 0.05, 0.2)}, "difference of AP")
    page = html_page("A & B", [Section("One", TEXT, (("a sheet", image), ("a forest", figure)))])
    assert "<title>A &amp; B</title>" in page
    assert "<td><b>1</b></td><td>x&lt;y</td>" in page
    assert "<th>a</th>" in page
    assert "<ul><li>one</li><li>two</li></ul>" in page
    assert "<pre>run --me</pre>" in page
    assert "A <b>bold</b> word &amp; <code>code</code>." in page
    sources = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    assert len(sources) == 2
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(sources[0])))), image)
    assert not re.search(r'(src|href)="(?!data:)', page)


def test_the_markdown_has_the_same_text() -> None:
    assert markdown_page("A", [Section("One", TEXT), Section("Empty", "")]) == f"# A\n\n## One\n\n{TEXT}\n"


def test_a_forest_has_a_line_per_question_and_colours_verdicts() -> None:
    found = {"up": Difference(0.1, 0.05, 0.2), "down": Difference(-0.1, -0.2, -0.05), "open": Difference(0, -0.1, 0.1)}
    (axes,) = forest_plot(found, "d").axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["open", "down", "up"]
    intervals = [(line.get_color(), np.asarray(line.get_xdata()).tolist()) for line in axes.lines[:-1:2]]
    assert intervals == [("0.4", [-0.1, 0.1]), ("tab:red", [-0.2, -0.05]), ("tab:green", [0.05, 0.2])]


def test_the_learning_curve_shows_sources_as_lines() -> None:
    (axes,) = learning_curve_plot({1: Estimate(0.3, 0.1), 10: Estimate(0.6, None)}, {"MemSeg": 0.5}).axes
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["MemSeg", "real defects only"]
