"""The page in a real browser: headless Chromium, driven by its own driver."""

import shutil

import numpy as np
import pytest
from PIL import Image

from tests.conftest import blobs

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1200,900",
)
# Of the picture that is shown, once the browser has it whole.
PIXELS = """
const [id, done] = arguments, image = document.getElementById(id);
image.decode().then(() => {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
  const pen = canvas.getContext("2d");
  pen.drawImage(image, 0, 0);
  done([...pen.getImageData(0, 0, canvas.width, canvas.height).data]);
}, () => done(null));
"""
SLIDE = """
const [id, value] = arguments, slider = document.getElementById(id);
slider.value = value;
slider.dispatchEvent(new Event("input", { bubbles: true }));
"""
# A wait that fails is as long; one that holds ends when it does.
PATIENCE_S = 300


@pytest.fixture(scope="module")
def page(server, tmp_path_factory):
    """One browser for all of these tests, with the page open."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium")
    from selenium.webdriver.chrome.service import Service

    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver):
        pytest.skip("needs Chromium and chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    downloads = tmp_path_factory.mktemp("downloads")
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options=options, service=Service(driver))
    browser.set_script_timeout(PATIENCE_S)
    try:
        browser.get(server.url)
        yield Page(browser, downloads)
    finally:
        browser.quit()


class Page:
    """What a person does with the page and sees on it."""

    def __init__(self, browser, downloads):
        from selenium.webdriver.support.ui import WebDriverWait

        self.browser, self.downloads = browser, downloads
        self._wait = WebDriverWait(browser, PATIENCE_S, poll_frequency=0.05)
        self.until(lambda: self.words("caption") == "Random, seed 0")

    def find(self, name):
        return self.browser.find_element("id", name)

    def words(self, name) -> str:
        return self.find(name).text

    def until(self, happened) -> None:
        self._wait.until(lambda _: happened())

    def picture(self) -> np.ndarray:
        # Nothing where the picture was replaced while it was read.
        values = self._wait.until(lambda browser: browser.execute_async_script(PIXELS, "result"))
        return np.array(values).reshape(32, 32, 4)[..., :3]

    def changes_by(self, act) -> np.ndarray:
        """The picture after an act, which must be another one than before."""
        before = self.picture()
        act()
        self.until(lambda: not np.array_equal(self.picture(), before))
        return self.picture()

    def slide(self, name, value) -> None:
        self.browser.execute_script(SLIDE, name, value)


def test_it_loads_with_a_draw_and_the_sliders_and_no_error(page):
    assert page.browser.title.endswith("fastvae explore")
    assert "32×32 pixels" in page.words("metadata") and not page.words("message")
    assert page.picture().shape == (32, 32, 3)
    assert [
        slider.get_attribute("name") for slider in page.browser.find_elements("css selector", "#sliders input")
    ] == [
        "Male",
        "Smiling",
        "Blurry",
    ]
    assert [entry for entry in page.browser.get_log("browser") if entry["level"] == "SEVERE"] == []


def test_a_slider_changes_the_picture_and_reset_brings_it_back(page):
    before = page.picture()
    page.changes_by(lambda: page.slide("attribute-Smiling", 2))
    assert page.words("attribute-Smiling-value") == "+2.0" and page.words("caption").endswith(", changed")
    page.find("reset").click()
    page.until(lambda: np.array_equal(page.picture(), before))
    assert page.words("attribute-Smiling-value") == "0.0"


def test_a_draw_can_be_had_again_by_its_seed(page):
    first = page.picture()
    page.changes_by(page.find("first-random").click)
    seed = page.find("first-seed")
    seed.clear()
    seed.send_keys("0\ue007")
    page.until(lambda: np.array_equal(page.picture(), first))


def test_it_interpolates_to_a_second_picture(page):
    assert not page.find("mix").is_enabled()
    first = page.picture()
    seed = page.find("second-seed")
    seed.send_keys("5\ue007")
    page.until(lambda: page.find("mix").is_enabled() and page.words("mix-value") == "0.50")
    page.until(lambda: not np.array_equal(page.picture(), first))
    end = page.changes_by(lambda: page.slide("mix", 1))
    page.slide("mix", 0)
    page.until(lambda: np.array_equal(page.picture(), first))
    assert np.abs(end - first).mean() > 0


def test_an_upload_is_shown_beside_its_reconstruction(page, tmp_path):
    Image.fromarray(blobs(1, 32, seed=3)[0]).resize((90, 64)).save(tmp_path / "photo.png")
    assert not page.find("original").is_displayed()
    page.changes_by(lambda: page.find("first-file").send_keys(str(tmp_path / "photo.png")))
    assert page.words("caption") == "Reconstruction" and page.find("original").is_displayed()


def test_a_broken_upload_gets_a_message_and_the_old_picture_stays(page, tmp_path):
    before = page.picture()
    (tmp_path / "broken.jpg").write_bytes(b"this is no picture")
    page.find("first-file").send_keys(str(tmp_path / "broken.jpg"))
    page.until(lambda: "broken.jpg: This file could not be read as a picture" in page.words("message"))
    assert np.array_equal(page.picture(), before)
    page.changes_by(page.find("first-random").click)
    assert not page.words("message")


def test_the_picture_can_be_saved(page):
    shown = page.picture()
    page.find("save").click()
    saved = page.downloads / "run.png"
    page.until(saved.exists)
    page.until(lambda: not list(page.downloads.glob("*.crdownload")))
    assert np.array_equal(np.asarray(Image.open(saved).convert("RGB")), shown)
