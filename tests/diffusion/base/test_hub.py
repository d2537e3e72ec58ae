"""Open bases from a hub that runs as a local server."""

import hashlib
import json
import shutil
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import huggingface_hub
import pytest
from huggingface_hub import constants

from inandout.diffusion.base.base import open_base, weights_fingerprint
from inandout.diffusion.base.config import BaseConfig
from inandout.diffusion.base.hub import NotHereError, fetch
from inandout.diffusion.base.identity import base_identity
from inandout.errors import InputError
from inandout.hardware import HardwareConfig
from inandout.stages.resolved_base import open_resolved_base
from tests.diffusion.tiny import tiny_pipeline

NAME, REVISION = "somebody/tiny-surfaces", "0123456789abcdef0123456789abcdef01234567"
PINNED = f"{NAME}@{REVISION}"


def file_of(path: str) -> str:
    """Return the name of the requested file."""
    return path.split("?")[0].removeprefix(f"/{NAME}/resolve/{REVISION}/")


class Hub:
    """Serves the files of `folder` as one revision of one repository, and records the requests."""

    def __init__(self, folder: Path) -> None:
        self.requests: list[str] = []
        self.broken = ""
        """Name of the file whose transfer stops half-way."""
        self.files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.*")}
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self.handler())
        self.thread = Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02})
        self.thread.start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def downloaded(self) -> set[str]:
        prefix = f"GET /{NAME}/resolve/{REVISION}/"
        return {line.removeprefix(prefix) for line in self.requests if line.startswith(prefix)}

    def stop(self) -> None:
        if self.thread.is_alive():
            self.server.shutdown()
            self.server.server_close()
            self.thread.join()

    def handler(self) -> type[BaseHTTPRequestHandler]:
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                hub.requests.append(f"{self.command} {self.path}")
                if self.path.split("?")[0] == f"/api/models/{NAME}/tree/{REVISION}":
                    entries = [
                        {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                        for name, content in hub.files.items()
                    ]
                    return self.answer(json.dumps(entries).encode())
                content = hub.files.get(file_of(self.path))
                return self.answer(content or b"Entry not found", 200 if content else 404)

            do_HEAD = do_GET

            def answer(self, content: bytes, status: int = 200) -> None:
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
                self.send_header("X-Repo-Commit", REVISION)
                if status == 404:
                    self.send_header("X-Error-Code", "RepoNotFound")
                self.end_headers()
                if self.command == "GET":
                    broken = hub.broken and file_of(self.path) == hub.broken
                    self.wfile.write(content[: len(content) // 2] if broken else content)

            def log_message(self, format: str, *values: object) -> None:
                pass

        return Handler


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with the necessary files and others that must not be downloaded."""
    folder = tmp_path_factory.mktemp("saved")
    tiny_pipeline().save_pretrained(folder)
    for part, name in (
        ("unet", "diffusion_pytorch_model"),
        ("vae", "diffusion_pytorch_model"),
        ("text_encoder", "model"),
    ):
        for ending in ("bin", "fp16.safetensors", "non_ema.safetensors"):
            (folder / part / f"{name}.{ending}").write_bytes(b"not to be fetched")
    for name in ("v1-5-pruned.ckpt", "v1-5-pruned.safetensors", "README.md", "safety_checker/model.safetensors"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"not to be fetched")
    return folder


@pytest.fixture
def hub(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """Point the hub client to the local server; it reads HF_ENDPOINT and HF_HUB_CACHE only once, on import."""
    hub = Hub(saved)
    monkeypatch.setattr(constants, "ENDPOINT", hub.address)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.address + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    huggingface_hub.close_session()
    yield hub
    hub.stop()
    huggingface_hub.close_session()


def test_only_the_necessary_files_are_downloaded_once(hub: Hub) -> None:
    base = open_base(BaseConfig(base=PINNED))
    assert base.fingerprint == weights_fingerprint(tiny_pipeline())
    assert base.kind == "embedded", "its VAE is that of the embedded base"
    assert hub.downloaded() == {
        "model_index.json", "scheduler/scheduler_config.json", "tokenizer/tokenizer.json",
        "tokenizer/tokenizer_config.json", "unet/config.json", "unet/diffusion_pytorch_model.safetensors",
        "vae/config.json", "vae/diffusion_pytorch_model.safetensors", "text_encoder/config.json",
        "text_encoder/model.safetensors",
    }  # fmt: skip
    hub.stop()
    count = len(hub.requests)
    assert open_base(BaseConfig(base=PINNED)).fingerprint == base.fingerprint
    assert len(hub.requests) == count


def test_without_download_no_request_is_sent(hub: Hub) -> None:
    with pytest.raises(NotHereError):
        open_base(BaseConfig(base=PINNED), download=False)
    assert hub.requests == []
    fingerprint = open_base(BaseConfig(base=PINNED)).fingerprint
    count = len(hub.requests)
    assert open_base(BaseConfig(base=PINNED), download=False).fingerprint == fingerprint
    assert len(hub.requests) == count


def test_the_kind_is_known_from_two_small_files(hub: Hub) -> None:
    config = BaseConfig(base=PINNED)
    assert config.kind() == "sd", "not known, and no request is sent"
    assert hub.requests == []
    config.fetch_configuration()
    assert hub.downloaded() == {"model_index.json", "unet/config.json"}
    hub.stop()
    assert config.kind() == "embedded", "the files are in the cache"


def test_a_base_of_another_kind_than_the_defaults_is_opened_by_the_next_call(hub: Hub) -> None:
    hardware = HardwareConfig(device="cpu").open()
    with pytest.raises(InputError, match=r"is of kind embedded, .*; run the same again"):
        open_resolved_base(BaseConfig(base=PINNED), hardware)
    assert open_resolved_base(BaseConfig(base=PINNED), hardware).kind == "embedded"


def test_an_interrupted_download_is_resumed(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # between the attempts
    hub.broken = "unet/diffusion_pytorch_model.safetensors"
    with pytest.raises(InputError, match="cannot be downloaded"):
        open_base(BaseConfig(base=PINNED))
    hub.broken = ""
    hub.requests.clear()
    assert open_base(BaseConfig(base=PINNED)).fingerprint == weights_fingerprint(tiny_pipeline())
    assert "text_encoder/model.safetensors" not in hub.downloaded()


def test_a_repository_of_pickles_is_rejected(hub: Hub) -> None:
    del hub.files["text_encoder/model.safetensors"]
    with pytest.raises(InputError, match=r"text_encoder/model\.safetensors is missing; pickles"):
        open_base(BaseConfig(base=PINNED))
    assert not any(name.endswith((".bin", ".ckpt")) for name in hub.downloaded())


def test_the_identity_needs_no_network(hub: Hub) -> None:
    assert base_identity(BaseConfig(base=PINNED)) == PINNED
    assert hub.requests == []


@pytest.mark.parametrize("name", [NAME, f"{NAME}@main", f"{NAME}@", f"{NAME}@{REVISION[:-1]}", f"{NAME}@{REVISION}0"])
def test_a_revision_that_is_not_pinned_is_rejected(hub: Hub, name: str) -> None:
    for act in (open_base, base_identity):
        expected = "needs a pinned revision: give owner/name@<40 hex digits>, .* Files > History"
        with pytest.raises(InputError, match=expected):
            act(BaseConfig(base=name))
    assert hub.requests == []


def test_a_failed_download_names_the_alternatives(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # between the attempts
    expected = "cannot be downloaded .*local folder .* '?embedded'?"
    with pytest.raises(InputError, match=expected) as raised:
        open_base(BaseConfig(base=f"nobody/nothing@{REVISION}"))
    assert "\n" not in str(raised.value)
    hub.stop()
    with pytest.raises(InputError, match=expected) as raised:
        open_base(BaseConfig(base=PINNED))
    assert "\n" not in str(raised.value)


def test_offline_the_cache_is_used(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="cannot be downloaded"):
        fetch(PINNED, ["model_index.json"])
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    folder = fetch(PINNED, ["model_index.json"])
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert fetch(PINNED, ["model_index.json"]) == folder


def test_a_local_folder_takes_precedence_over_a_hub_id(
    hub: Hub, saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(saved, tmp_path / NAME)
    monkeypatch.chdir(tmp_path)
    open_base(BaseConfig(base=NAME))
    assert hub.requests == []
