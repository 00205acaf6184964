"""The docs site as a reader's browser shows it."""

import re
from pathlib import Path

from payments.diagrams.areas import AREAS
from payments.diagrams.browser import read_page, take_picture

OVERVIEW = "/index.html#!/overview"
DIAGRAMS = (
    "architecture",
    "stars/fct_payments",
    "warehouse_erd",
    "oltp_erd",
    *(f"oltp_{area.name}" for area in AREAS),
    "document_model",
)
# Loads each picture as the overview does and writes down how wide it came out.
MEASURING_PAGE = """<!doctype html><body>{pictures}<script>
addEventListener("load", () => document.querySelectorAll("img").forEach(
    picture => picture.setAttribute("data-width", picture.naturalWidth)))
</script></body>"""


def test_overview_shows_every_diagram(site: str, site_folder: Path) -> None:
    page = read_page(site + OVERVIEW)
    pictures = re.findall(r'<img src="(docs/generated/[^"]+)"', page)
    assert pictures == [f"docs/generated/{name}.svg" for name in DIAGRAMS]

    tags = "".join(f'<img src="{picture}">' for picture in [*pictures, "docs/generated/none.svg"])
    (site_folder / "measure.html").write_text(MEASURING_PAGE.format(pictures=tags))
    widths = re.findall(
        r'<img src="docs/generated/([\w/]+)\.svg" data-width="(\d+)"', read_page(site + "/measure.html")
    )
    assert [name for name, _ in widths] == [*DIAGRAMS, "none"]
    assert all(int(width) >= 600 for _, width in widths[:-1])
    assert int(widths[-1][1]) == 0  # a picture that does not load would be noticed


def test_overview_shows_the_bus_matrix_as_a_table(site: str) -> None:
    page = read_page(site + OVERVIEW)
    rows = re.findall(r"<tr>.*?</tr>", page, flags=re.DOTALL)
    payments = [row for row in rows if "<code>fct_payments</code>" in row]
    assert payments
    assert "<code>merchant_key</code>" in payments[0]
    assert "bus matrix: generated" not in re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)


def test_model_pages_open(site: str) -> None:
    page = read_page(site + "/index.html#!/model/model.payments.fct_payments")
    assert "captured_amount_minor" in page
    assert '<img src="docs/generated/stars/fct_payments.svg"' in page


def test_a_picture_of_the_site_is_taken(site: str, tmp_path: Path) -> None:
    picture = tmp_path / "docs.png"
    take_picture(site + OVERVIEW, picture, width=800, height=600)
    header = picture.read_bytes()[:24]
    assert header[:8] == b"\x89PNG\r\n\x1a\n"
    assert (int.from_bytes(header[16:20], "big"), int.from_bytes(header[20:24], "big")) == (800, 600)
