"""`load_model`: the real model, offline, on the device and in the type asked for; other models; clear refusals."""

from __future__ import annotations

import functools
import json
import os
import re
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tiny_models import save_gpt2

from rapidadapt_lessons.errors import CourseError, ModelNotFound
from rapidadapt_lessons.lm import download
from rapidadapt_lessons.lm import model as models

ENGLISH = (
    "The quick brown fox jumps over the lazy dog. In the morning, the sun rises in the east, and in the evening "
    "it sets in the west. Water boils at one hundred degrees and freezes at zero."
)
WORDS = ["<unk>", "<s>", "<end>", *"abcdefgh"]


@pytest.fixture(scope="module")
def default():
    """The course's model on the CPU and its tokenizer, loaded once for this file."""
    return models.load_model(device="cpu")


def perplexity(model, ids: torch.Tensor) -> float:
    with torch.inference_mode():
        return float(torch.exp(model(ids, labels=ids).loss))


def write_tiny_gpt2(folder: Path, **special_tokens: str) -> Path:
    """Save a GPT-2 of one layer, with random weights, and a tokenizer of one token a letter."""
    return save_gpt2(folder, WORDS, positions=32, width=8, end=2, **special_tokens)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return write_tiny_gpt2(tmp_path_factory.mktemp("tiny"), unk_token="<unk>", eos_token="<end>")


@pytest.fixture
def no_hub(monkeypatch, tmp_path):
    """An empty local hub cache, and a hub that does not answer."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(models, "hub_reachable", lambda: False)


# The course's own model


def test_it_is_a_llama_of_135_million_float32_weights_ready_for_evaluation(default):
    model, tokenizer = default
    assert model.config.model_type == "llama"
    assert sum(parameter.numel() for parameter in model.parameters()) == 134_515_008
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert model.dtype == torch.float32 and model.device == torch.device("cpu")
    assert not any(module.training for module in model.modules())
    assert model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()
    assert models.context_length(model) == tokenizer.model_max_length == 8192


def test_the_weights_are_those_on_disk_bit_for_bit(default):
    from safetensors import safe_open

    state = default[0].state_dict()
    with safe_open(download.check_model().path / "model.safetensors", "pt") as file:
        assert set(file.keys()) == set(state) - {"lm_head.weight"}
        for name in ("model.embed_tokens.weight", "model.layers.17.mlp.up_proj.weight", "model.norm.weight"):
            assert torch.equal(file.get_tensor(name), state[name])


def test_each_block_of_32_weights_of_a_linear_layer_lies_on_16_levels(default):
    """Q4_1: even steps from the block's smallest weight to its largest, of which every weight is a whole number."""
    linear = {name: p for name, p in default[0].named_parameters() if name.endswith("proj.weight")}
    assert len(linear) == 30 * 7
    for name, weight in linear.items():
        blocks = weight.detach().reshape(-1, 32)[::97].double()
        low, high = blocks.min(dim=1, keepdim=True).values, blocks.max(dim=1, keepdim=True).values
        codes = (blocks - low) / ((high - low) / 15).clamp_min(1e-12)
        assert max(len(block.unique()) for block in blocks) <= 16, name
        assert (codes - codes.round()).abs().max() < 0.01, name
    embeddings = default[0].get_input_embeddings().weight[1000].reshape(-1, 32)
    assert max(len(block.unique()) for block in embeddings) > 16, "these are kept in 8 bits"


def test_the_tokenizer_can_pad_and_comes_back_to_the_same_text(default):
    _, tokenizer = default
    assert tokenizer.pad_token is not None and tokenizer.pad_token_id is not None
    batch = tokenizer(["One.", "One, two, three."], return_tensors="pt", padding=True)
    assert batch.input_ids.shape[0] == 2 and batch.attention_mask[0].sum() < batch.attention_mask[1].sum()
    assert tokenizer.decode(tokenizer(ENGLISH).input_ids) == ENGLISH
    assert tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False).startswith("<|im_start|>")


def test_it_was_really_pretrained(default):
    """English is far likelier than the same tokens shuffled, and the greedy continuations are true."""
    model, tokenizer = default
    ids = tokenizer(ENGLISH, return_tensors="pt").input_ids
    mixed = ids[:, torch.randperm(ids.shape[1], generator=torch.Generator().manual_seed(0))]
    english, shuffled = perplexity(model, ids), perplexity(model, mixed)
    assert english < 30 < 300 < shuffled < len(tokenizer)
    for prompt, answer in [("The capital of France is", " Paris"), ("Monday, Tuesday, Wednesday,", " Thursday")]:
        with torch.inference_mode():
            scores = model(**tokenizer(prompt, return_tensors="pt")).logits[0, -1]
        best = [tokenizer.decode(token) for token in scores.topk(3).indices]
        assert answer in best, best


def test_the_same_call_gives_the_same_logits(default):
    model, tokenizer = default
    batch = tokenizer("Two plus two is", return_tensors="pt")
    with torch.inference_mode():
        once, again = model(**batch).logits, model(**batch).logits
        assert torch.equal(once, again)
        anew, _ = models.load_model(download.DEFAULT_MODEL, device="cpu")
        assert anew is not model
        assert torch.equal(anew(**batch).logits, once)


@pytest.mark.parametrize("dtype", ["bfloat16", torch.bfloat16])
def test_another_type_is_taken_for_every_weight(default, dtype):
    model, tokenizer = models.load_model(device="cpu", dtype=dtype)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    batch = tokenizer("The capital of France is", return_tensors="pt")
    with torch.inference_mode():
        rounded, exact = model(**batch).logits.float(), default[0](**batch).logits
    assert torch.nn.functional.cosine_similarity(rounded[0, -1], exact[0, -1], dim=0) > 0.99


def test_auto_takes_the_device_there_is():
    model, _ = models.load_model()
    assert model.device.type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_a_gpu_gives_what_the_cpu_gives(default):
    model, tokenizer = models.load_model(device="cuda")
    assert model.device.type == "cuda" and model.dtype == torch.float32
    batch = tokenizer("The capital of France is", return_tensors="pt")
    with torch.inference_mode():
        there, here = model(**batch.to("cuda")).logits.cpu(), default[0](**batch.to("cpu")).logits
    torch.testing.assert_close(there, here, rtol=1e-2, atol=1e-2)


OFFLINE = """
import json, sys

attempts, biting = [], []
FORBIDDEN = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto", "socket.sendmsg")

def guard(event, arguments):
    if event in FORBIDDEN:
        attempts.append(event)
        raise OSError(f"refused: {event}")

sys.addaudithook(guard)  # Python itself calls this before each use of a socket; it cannot be removed
import torch
from rapidadapt_lessons.lm.model import hub_reachable, load_model

model, tokenizer = load_model()
with torch.inference_mode():
    logits = model(**tokenizer("The capital of France is", return_tensors="pt").to(model.device)).logits
used = list(attempts)

import socket
for use in (lambda: socket.create_connection(("127.0.0.1", 9)), lambda: socket.getaddrinfo("localhost", 80),
            lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.1", 9))):
    try:
        use()
    except OSError as error:
        biting.append(str(error))
before = len(attempts)
print(json.dumps({"used": used, "finite": bool(torch.isfinite(logits).all()), "shape": list(logits.shape),
                  "biting": biting, "hub": hub_reachable(5.0), "hub_tried": len(attempts) > before}))
"""


def test_no_network_is_used_once_set_up():
    """In a fresh process, with no variable that says offline and every use of a socket refused and written down."""
    environment = {k: v for k, v in os.environ.items() if k not in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")}
    done = subprocess.run([sys.executable, "-c", OFFLINE], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["used"] == []
    assert found["finite"] and found["shape"][0] == 1 and found["shape"][2] == 49152
    # The guard bites: the same process could use no socket, and asking for the hub was noticed.
    assert [said.startswith("refused: socket.") for said in found["biting"]] == [True] * 3
    assert found["hub"] is False and found["hub_tried"]


@pytest.mark.filterwarnings("ignore:A test tried to use socket")
def test_loading_works_where_sockets_cannot_even_be_made(socket_disabled):
    from pytest_socket import SocketBlockedError

    model, _ = models.load_model(device="cpu")
    assert not model.training
    with pytest.raises(SocketBlockedError):
        socket.socket()


def test_a_damaged_cache_is_noticed_before_anything_is_loaded(monkeypatch, tmp_path):
    """`load_model` goes through `ensure_model`, whose own errors reach the reader as they are."""
    folder = tmp_path / download.DEFAULT_MODEL
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"half of")
    monkeypatch.setenv("RAPIDADAPT_CACHE", str(tmp_path))
    monkeypatch.setattr(download.shutil, "disk_usage", lambda path: SimpleNamespace(free=1_000_000))
    with pytest.raises(CourseError, match="1 MB free"):
        models.load_model()


# Folders


@pytest.mark.parametrize("as_what", [str, Path])
def test_a_folder_is_loaded(tiny, as_what):
    model, tokenizer = models.load_model(as_what(tiny), device="cpu")
    assert model.config.model_type == "gpt2" and not model.training
    assert models.context_length(model) == 32
    assert tokenizer("a b c").input_ids == [3, 4, 5]
    with torch.inference_mode():
        assert model(**tokenizer("a b c", return_tensors="pt")).logits.shape == (1, 3, len(WORDS))


def test_the_model_goes_to_the_device_that_was_picked(tiny, monkeypatch):
    """Shown with torch's device without memory, which every machine has and nobody may pick."""
    monkeypatch.setattr(models, "pick_device", lambda device: torch.device("meta"))
    model, _ = models.load_model(str(tiny), device="cuda:7")
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}


def test_a_folder_is_found_from_here_and_from_home(tiny, monkeypatch):
    monkeypatch.chdir(tiny.parent)
    assert models.load_model(tiny.name)[0].config.model_type == "gpt2"
    monkeypatch.setenv("HOME", str(tiny.parent))
    monkeypatch.setenv("USERPROFILE", str(tiny.parent))
    assert models.load_model(os.path.join("~", tiny.name))[0].config.model_type == "gpt2"


@pytest.mark.parametrize(
    ("special_tokens", "pad"),
    [
        ({"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "<end>", "pad_token": "h"}, "h"),
        ({"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "<end>"}, "<end>"),
        ({"unk_token": "<unk>", "bos_token": "<s>"}, "<s>"),
        ({"unk_token": "<unk>"}, "<unk>"),
    ],
)
def test_a_tokenizer_without_a_pad_token_gets_one(tmp_path, special_tokens, pad):
    _, tokenizer = models.load_model(str(write_tiny_gpt2(tmp_path, **special_tokens)), device="cpu")
    assert tokenizer.pad_token == pad
    batch = tokenizer(["a", "a b c"], padding=True)
    assert [len(ids) for ids in batch.input_ids] == [3, 3]


def spoil(folder: Path, how: str) -> None:
    if how == "empty":
        for path in folder.iterdir():
            path.unlink()
    elif how == "no weights":
        (folder / "model.safetensors").unlink()
    elif how == "weights cut":
        os.truncate(folder / "model.safetensors", 200)
    elif how == "unknown kind":
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"model_type": "no-such-architecture"}))


@pytest.mark.parametrize("how", ["empty", "no weights", "weights cut", "unknown kind"])
def test_a_folder_without_a_usable_model_is_told(tmp_path, how):
    spoil(write_tiny_gpt2(tmp_path / "mine", eos_token="<end>"), how)
    with pytest.raises(ModelNotFound, match=re.escape(repr(str(tmp_path / "mine")))) as caught:
        models.load_model(str(tmp_path / "mine"), device="cpu")
    assert download.DEFAULT_MODEL in caught.value.remedy


# Names on the hub


@pytest.mark.parametrize("name", ["gpt2", "HuggingFaceTB/SmolLM2-360M", "smollm2-135m-instruct"])
def test_a_hub_name_without_a_hub_says_what_to_do(no_hub, name):
    with pytest.raises(ModelNotFound, match=f"'{name}' is not on this machine.*cannot be reached") as caught:
        models.load_model(name)
    assert "connect and try again" in caught.value.remedy and download.DEFAULT_MODEL in caught.value.remedy


@pytest.mark.parametrize("name", ["", " ", "a/b/c", "gpt2 ", "no*star", "-x", "x..y", "/no/folder", "./mine", None, 7])
def test_an_impossible_name_is_told_without_asking_anyone(monkeypatch, name):
    def refuse(*arguments):
        raise AssertionError("asked the hub")

    monkeypatch.setattr(models, "hub_reachable", refuse)
    with pytest.raises(ModelNotFound, match=re.escape(repr(name))) as caught:
        models.load_model(name)
    assert "spelling" in caught.value.remedy


def put_in_hub_cache(tiny: Path, hub: Path, name: str) -> Path:
    """Lay a model out as the hub's local cache does, and return its folder."""
    place = hub / f"models--{name}"
    folder = place / "snapshots" / ("a" * 40)
    folder.mkdir(parents=True)
    for path in tiny.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text("a" * 40)
    return folder


def test_a_model_in_the_local_hub_cache_needs_no_hub(no_hub, tiny, tmp_path, socket_disabled):
    put_in_hub_cache(tiny, tmp_path / "hub", "tiny-gpt2")
    assert models.load_model("tiny-gpt2", device="cpu")[0].config.model_type == "gpt2"


@pytest.mark.parametrize("missing", ["model.safetensors", "tokenizer.json", "config.json"])
def test_a_model_that_is_only_partly_in_the_local_hub_cache_says_so(no_hub, tiny, tmp_path, missing):
    (put_in_hub_cache(tiny, tmp_path / "hub", "tiny-gpt2") / missing).unlink()
    with pytest.raises(ModelNotFound, match="'tiny-gpt2' is not complete on this machine") as caught:
        models.load_model("tiny-gpt2", device="cpu")
    assert "connect and try again" in caught.value.remedy


@pytest.fixture(scope="module")
def server(tiny):
    """A model hub on this machine. It has one model, under every name that starts with "tiny-", and can cut a file."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self, with_body: bool) -> None:
            server.asked.append((self.command, self.path))
            commit = {"X-Repo-Commit": "b" * 40}
            asked = re.fullmatch(r"/tiny-\w+/resolve/\w+/([\w.]+)", self.path)
            about = re.fullmatch(r"/api/models/tiny-\w+", self.path)
            if self.path == "/":
                self.reply(200, b"a hub", {}, with_body)
            elif about:
                self.reply(200, json.dumps({"id": "tiny", "sha": "b" * 40, "siblings": []}).encode(), {}, with_body)
            elif asked and (tiny / asked[1]).is_file():
                etag = {"ETag": f'"{download.sha256_of(tiny / asked[1])}"'}
                self.reply(200, (tiny / asked[1]).read_bytes(), etag | commit, with_body)
            else:
                code = "EntryNotFound" if "/tiny-" in self.path else "RepoNotFound"
                self.reply(404, b"no", {"X-Error-Code": code} | commit, with_body)

        def reply(self, status: int, body: bytes, headers: dict, with_body: bool) -> None:
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(body))} | headers).items():
                self.send_header(name, value)
            self.end_headers()
            if with_body:
                self.wfile.write(body[: len(body) // 2] if server.cut and self.path.endswith(server.cut) else body)

        def do_GET(self):
            self.answer(with_body=True)

        def do_HEAD(self):
            self.answer(with_body=False)

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.asked, server.cut = [], ""
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def hub(server):
    """The hub on this machine, which nobody has asked yet."""
    server.cut = ""
    server.asked.clear()
    return server


READER = """
import json, sys
from rapidadapt_lessons.errors import ModelNotFound
from rapidadapt_lessons.lm.model import load_model
for name in sys.stdin:
    try:
        answer = ["loaded", load_model(name.strip(), device="cpu")[0].config.model_type]
    except ModelNotFound as error:
        answer = ["refused", str(error)]
    print(json.dumps(answer), flush=True)
"""


def start_reader(server, home: Path, **more: str) -> subprocess.Popen:
    """Start a Python whose hub is `server` and whose hub cache is below `home`: it reads names and loads them."""
    unset = {"HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_CACHE", "HF_TOKEN"}
    environment = {name: value for name, value in os.environ.items() if name not in unset} | more
    environment |= {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "NO_PROXY": "127.0.0.1"}
    environment |= {"HF_HOME": str(home), "HF_HUB_DOWNLOAD_TIMEOUT": "5"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    return subprocess.Popen([sys.executable, "-c", READER], env=environment, text=True, **pipes)


def ask(reader: subprocess.Popen, name: str) -> list[str]:
    """Have the other process load a model, and return ["loaded", kind] or ["refused", message]."""
    reader.stdin.write(f"{name}\n")
    reader.stdin.flush()
    return json.loads(reader.stdout.readline())


@pytest.fixture(scope="module")
def reader(server, tmp_path_factory):
    with start_reader(server, tmp_path_factory.mktemp("reader")) as reader:
        yield reader
        reader.stdin.close()


def test_a_hub_name_is_fetched_once_and_then_kept(hub, reader):
    assert ask(reader, "tiny-new") == ["loaded", "gpt2"]
    assert any(path.endswith("/model.safetensors") for _, path in hub.asked)
    hub.asked.clear()
    assert ask(reader, "tiny-new") == ["loaded", "gpt2"]
    assert hub.asked == []


def test_a_download_that_is_cut_is_completed_by_the_next_call(hub, reader):
    hub.cut = "/model.safetensors"
    state, said = ask(reader, "tiny-cut")
    assert state == "refused" and "'tiny-cut'" in said
    assert any(path.endswith("/model.safetensors") for _, path in hub.asked)
    hub.cut = ""
    assert ask(reader, "tiny-cut") == ["loaded", "gpt2"]


def test_a_name_that_the_hub_does_not_know_is_told(hub, reader):
    state, said = ask(reader, "large-gpt3")
    assert state == "refused"
    assert "hub did not give a usable model 'large-gpt3'" in said and "spelling" in said
    assert any("large-gpt3" in path for _, path in hub.asked)


def test_the_readers_wish_to_stay_offline_is_honoured(hub, tmp_path):
    with start_reader(hub, tmp_path, HF_HUB_OFFLINE="1") as offline:
        state, said = ask(offline, "tiny-new")
        offline.stdin.close()
    assert state == "refused" and "'tiny-new' is not on this machine" in said
    assert hub.asked == []


# Is the hub there?


@pytest.fixture
def endpoint(monkeypatch):
    """Return a function that sets the hub's address for this process, not offline whatever the variables say."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("NO_PROXY", "*")
    return lambda address: monkeypatch.setattr(constants, "ENDPOINT", address)


def test_a_hub_that_answers_is_reachable_whatever_it_says(hub, endpoint):
    endpoint(f"http://127.0.0.1:{hub.server_port}")
    assert models.hub_reachable(20.0) is True
    endpoint(f"http://127.0.0.1:{hub.server_port}/nothing/here")
    assert models.hub_reachable(20.0) is True
    assert {method for method, _ in hub.asked} == {"HEAD"}


def test_a_hub_where_nothing_listens_is_not_reachable(endpoint):
    endpoint("http://127.0.0.1:9")
    assert models.hub_reachable(20.0) is False


def test_offline_mode_is_not_reachable_and_nobody_is_asked(hub, endpoint, monkeypatch):
    import huggingface_hub
    from huggingface_hub import constants

    endpoint(f"http://127.0.0.1:{hub.server_port}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    sessions = []
    monkeypatch.setattr(huggingface_hub, "get_session", lambda: sessions.append("asked for"))
    assert models.hub_reachable(20.0) is False
    assert hub.asked == sessions == []


class Hang:
    """Something that does not come back while the test runs. (It would after 30 s: a faulty test fails, not hangs.)"""

    def __init__(self):
        self.begun, self.release, self.ended = threading.Event(), threading.Event(), threading.Event()

    def __call__(self, *arguments, **options):
        self.begun.set()
        self.release.wait(30)
        self.ended.set()
        raise OSError("too late")


@pytest.fixture
def hang():
    hang = Hang()
    yield hang
    hang.release.set()


def test_a_hub_that_hangs_is_given_up_after_the_time_given(hang, endpoint, monkeypatch):
    import huggingface_hub

    class Session:
        head = hang

    endpoint("http://hub.invalid")
    monkeypatch.setattr(huggingface_hub, "get_session", Session)
    assert models.hub_reachable(0.2) is False
    assert hang.begun.is_set() and not hang.ended.is_set()


def test_a_name_lookup_that_hangs_is_given_up_after_the_time_given(hang, endpoint, monkeypatch):
    """Looking a name up has no time-out of its own: only a thread left behind gets out of it."""
    endpoint("http://hub.invalid")
    monkeypatch.setattr(socket, "getaddrinfo", hang)
    assert models.hub_reachable(1.0) is False
    assert hang.begun.is_set() and not hang.ended.is_set()


def test_a_hanging_hub_ends_in_an_error_that_says_what_to_do(hang, endpoint, monkeypatch, tmp_path):
    from huggingface_hub import constants

    endpoint("http://hub.invalid")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(socket, "getaddrinfo", hang)
    monkeypatch.setattr(models, "hub_reachable", functools.partial(models.hub_reachable, 0.5))
    with pytest.raises(ModelNotFound, match="'gpt2' is not on this machine") as caught:
        models.load_model("gpt2")
    assert "connect and try again" in caught.value.remedy
    assert not hang.ended.is_set()


def test_asking_takes_a_few_seconds_at_most_unless_told_otherwise():
    """With the 5 seconds that a wrong name may take, this leaves 2 for everything else."""
    assert models.hub_reachable.__defaults__ == (3.0,)


# Devices and types


@pytest.mark.parametrize("device", ["tpu", "", "CPU!", "cuda:x", "cuda:-1", "gpu", None, 3.5])
def test_an_unknown_device_is_told(device):
    with pytest.raises(CourseError, match=re.escape(f"{device!r} is not the name of a device")) as caught:
        models.pick_device(device)
    assert '"auto"' in caught.value.remedy or '"cpu"' in caught.value.remedy


@pytest.mark.parametrize("device", ["cuda", "cuda:0", "mps", "xpu", "meta"])
def test_a_device_that_this_machine_lacks_is_told(monkeypatch, device):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(CourseError, match=f"this machine has no device '{device}'") as caught:
        models.pick_device(device)
    assert '"auto"' in caught.value.remedy


def test_devices_are_counted(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert models.pick_device("auto") == models.pick_device() == torch.device("cuda")
    assert models.pick_device("cuda") == torch.device("cuda")
    assert models.pick_device("cuda:1") == torch.device("cuda:1")
    assert models.pick_device("cpu") == torch.device("cpu")
    for absent in ("cuda:2", "cuda:99"):
        with pytest.raises(CourseError, match=f"no device '{absent}'"):
            models.pick_device(absent)


def test_without_a_gpu_auto_is_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert models.pick_device("auto") == torch.device("cpu")


def test_apples_gpu_is_taken_when_it_is_asked_for_by_name(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert models.pick_device("mps") == torch.device("mps")


@pytest.mark.parametrize("name", ["float32", "bfloat16", "float16"])
def test_a_type_goes_by_its_name_or_as_itself(name):
    assert models.pick_dtype(name) is models.pick_dtype(getattr(torch, name)) is getattr(torch, name)


@pytest.mark.parametrize("dtype", ["float64", "fp32", "", "torch.float32", torch.int8, None, 16, ["float32"]])
def test_an_unknown_type_is_told(dtype):
    with pytest.raises(CourseError, match=re.escape(f"dtype {dtype!r} is not one of float32, bfloat16, float16")):
        models.pick_dtype(dtype)


@pytest.mark.parametrize("wrong", [{"device": "tpu"}, {"dtype": "float64"}])
def test_a_wrong_device_or_type_is_told_before_anything_is_fetched(monkeypatch, wrong):
    def refuse(*arguments, **options):
        raise AssertionError("went for the model first")

    monkeypatch.setattr(models, "ensure_model", refuse)
    monkeypatch.setattr(models, "hub_reachable", refuse)
    for name in (download.DEFAULT_MODEL, "gpt2"):
        with pytest.raises(CourseError, match=next(iter(wrong.values()))):
            models.load_model(name, **wrong)


# The reader's settings


@pytest.mark.parametrize("shown", [True, False])
@pytest.mark.parametrize("fails", [True, False])
def test_progress_bars_are_hidden_inside_and_as_before_after(shown, fails):
    from transformers.utils import logging

    before = logging.is_progress_bar_enabled()
    try:
        (logging.enable_progress_bar if shown else logging.disable_progress_bar)()
        try:
            with download.quiet_transformers():
                assert not logging.is_progress_bar_enabled()
                if fails:
                    raise KeyError("something")
        except KeyError:
            assert fails
        assert logging.is_progress_bar_enabled() is shown
    finally:
        (logging.enable_progress_bar if before else logging.disable_progress_bar)()


def test_loading_prints_nothing(capfd):
    models.load_model(device="cpu")
    assert capfd.readouterr() == ("", "")
