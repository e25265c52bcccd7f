import io
import os
import pickle
import shutil
import zipfile
from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch
from torch import nn

from deepliif_ray.errors import ConfigError, ModelError
from deepliif_ray.models import load_model
from deepliif_ray.models.archive import read_torchscript
from deepliif_ray.models.checkpoint import load_checkpoint
from tests.models.published import TRANSLATORS, as_torchscript, write_options, write_published_folder

SMALL = {"net_g": "resnet_6blocks", "net_gs": "unet_32", "scale_size": 32, "ngf": 4}


NEEDED = {"G4", "G51", "G55", "GS0", "GS4"}


@pytest.fixture(scope="module", autouse=True)
def _kept(tmp_path_factory):
    """Folders that were written once are copied afterwards: most tests begin with the same one."""
    KEPT["folder"] = tmp_path_factory.mktemp("kept")
    yield
    KEPT.clear()


KEPT: dict[str, Path] = {}


def write(folder, **kwargs):
    options = {**SMALL, "only": NEEDED, **kwargs}
    if "weights_fn" in options:
        return write_published_folder(folder, **options)
    said = repr(
        [(name, sorted(value) if isinstance(value, set) else value) for name, value in options.items()]
    )
    if said not in KEPT:
        KEPT[said] = write_published_folder(KEPT["folder"] / str(len(KEPT)), **options)
    return Path(shutil.copytree(KEPT[said], folder, dirs_exist_ok=True))


def tiles(n=3, size=32, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, size, size, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def eager(tmp_path_factory):
    return write(tmp_path_factory.mktemp("eager"), only=None)


@pytest.fixture(scope="module")
def expected(eager):
    return load_model(str(eager)).infer(tiles())


def same(a, b):
    return np.array_equal(a.seg, b.seg) and np.array_equal(a.marker, b.marker)


@pytest.mark.parametrize(
    ("form", "naming", "statistics"),
    [
        ("eager", "GS", False),
        ("serialized", "G5", False),
        ("serialized", "GS", True),
        ("both", "GS", False),
    ],
)
def test_every_form_and_naming_is_one_model(form, naming, statistics, tmp_path, eager, expected):
    folder = write(tmp_path, form=form, naming=naming, statistics=statistics)
    model = load_model(str(folder))
    assert model.digest == load_model(str(eager)).digest
    assert same(model.infer(tiles()), expected)


def test_digest_follows_weights_and_options(tmp_path, eager):
    digest = load_checkpoint(str(eager)).digest
    assert len(digest) == 32
    changes = {
        "weights": {"seed": 1},
        "seg_weights": {"options": {"seg_weights": [0.5, 0, 0, 0, 0.25]}},
        "background": {"options": {"background_colors": [(1, 1, 1)] * 4}},
        "more networks": {"options": {"seg_weights": [0.4, 0.1, 0, 0, 0.5]}, "only": None},
    }
    found = [
        load_checkpoint(str(write(tmp_path / name, **change))).digest for name, change in changes.items()
    ]
    assert len({digest, *found}) == len(changes) + 1
    assert load_checkpoint(str(eager), ["DAPI"]).digest == digest  # what is loaded besides does not matter
    assert load_checkpoint(str(write(tmp_path / "x", options={"name": "other"}))).digest == digest


@pytest.mark.parametrize("form", ["eager", "serialized"])
def test_only_needed_networks_are_read(form, tmp_path):
    checkpoint = load_checkpoint(str(write(tmp_path, form=form)))
    assert set(checkpoint.translators) == {3}
    assert set(checkpoint.segmenters) == {0, 4}
    with pytest.raises(ModelError, match=r"G2"):
        load_checkpoint(str(tmp_path), ["DAPI"])


def test_only_needed_networks_run(eager, monkeypatch):
    model = load_model(str(eager), modalities=["DAPI"])
    calls = []
    for index, network in {
        **model._translators,
        **{f"s{i}": n for i, n in model._segmenters.items()},
    }.items():
        network.register_forward_pre_hook(lambda *_, index=index: calls.append(index))
    model.infer(tiles(1))
    assert sorted(map(str, calls)) == ["3", "s0", "s4"]
    calls.clear()
    assert set(model.infer(tiles(1), ["DAPI"]).modalities) == {"DAPI"}
    assert 1 in calls


def test_remote_folder(eager, expected):
    fs = fsspec.filesystem("memory")
    fs.put(str(eager) + "/", "/models/published", recursive=True)
    model = load_model("memory://models/published/")
    assert model.name == "published"
    assert same(model.infer(tiles()), expected)


def test_weights_saved_from_data_parallel(tmp_path, eager, expected):
    for file in eager.iterdir():
        if file.suffix == ".pth":
            state = torch.load(file, weights_only=True)
            torch.save({f"module.{k}": v for k, v in state.items()}, tmp_path / file.name)
        else:
            shutil.copy(file, tmp_path)
    assert same(load_model(str(tmp_path)).infer(tiles()), expected)


def test_network_trained_with_dropout(tmp_path, eager, expected):
    """Dropout renumbers the second half of a residual block; the weights are the same."""
    shutil.copytree(eager, tmp_path, dirs_exist_ok=True)
    file = tmp_path / "latest_net_G4.pth"
    moved = {}
    for name, tensor in torch.load(file, weights_only=True).items():
        head, block, layer = name.partition("conv_block.")
        number, _, leaf = layer.partition(".")
        moved[f"{head}{block}{int(number) + 1}.{leaf}" if block and int(number) >= 3 else name] = tensor
    torch.save(moved, file)
    assert same(load_model(str(tmp_path)).infer(tiles()), expected)


@pytest.mark.parametrize("norm", ["instance", "none"])
@pytest.mark.parametrize("form", ["eager", "serialized"])
def test_other_norms(norm, form, tmp_path):
    result = load_model(str(write(tmp_path, form=form, norm=norm))).infer(tiles(1))
    assert result.seg.std() > 0


def test_spectral_norm_is_applied_as_torch_does(tmp_path):
    write(tmp_path, norm="none")
    write_options(tmp_path, {"norm": "spectral", **{k: v for k, v in SMALL.items() if k != "ngf"}})
    file = tmp_path / "latest_net_G4.pth"
    plain = torch.load(file, weights_only=True)
    state, effective = {}, {}
    for name, tensor in plain.items():
        if tensor.dim() != 4:
            state[name] = effective[name] = tensor
            continue
        up = name in ("model.16.weight", "model.19.weight")
        layer = (nn.ConvTranspose2d if up else nn.Conv2d)(
            *(tensor.shape[:2] if up else tensor.shape[1::-1]), tensor.shape[2], bias=False
        )
        layer.weight.data = tensor
        layer = nn.utils.parametrizations.spectral_norm(layer).eval()
        effective[name] = layer.weight.detach()
        prefix = name.removesuffix("weight")
        state |= {f"{prefix}{key}": value for key, value in layer.state_dict().items()}
    torch.save(state, file)
    network = load_checkpoint(str(tmp_path)).translators[3]
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(tensor, effective[name], atol=1e-6, rtol=1e-5)


class _Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv_block = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4))

    def forward(self, x):
        return x + self.conv_block(x)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("how", ["trace", "script"])
@pytest.mark.parametrize("drop", [True, False])
def test_archive_reader_agrees_with_torch(how, drop, tmp_path):
    net = nn.Sequential(
        nn.ReflectionPad2d(1), nn.Conv2d(3, 4, 3), _Block(), nn.ConvTranspose2d(4, 3, 3), nn.Tanh()
    )
    for module in net.modules():
        if drop and isinstance(module, nn.BatchNorm2d):
            module.running_mean = module.running_var = None
            module.track_running_stats = False
    net.eval()
    frozen = torch.jit.trace(net, torch.zeros(1, 3, 8, 8)) if how == "trace" else torch.jit.script(net)
    path = tmp_path / "net.pt"
    frozen.save(str(path))
    got, state = read_torchscript(path.read_bytes(), "net.pt"), torch.jit.load(str(path)).state_dict()
    assert got.keys() == state.keys()
    assert all(torch.equal(got[k], state[k]) for k in state)


@pytest.mark.parametrize(
    ("removed", "named"),
    [("train_opt.txt", "train_opt.txt"), ("latest_net_G4.pth", "G4"), ("latest_net_G55.pth", "G55")],
)
def test_missing_files_are_named(removed, named, tmp_path, eager):
    shutil.copytree(eager, tmp_path, dirs_exist_ok=True)
    (tmp_path / removed).unlink()
    with pytest.raises(ModelError, match=named) as caught:
        load_model(str(tmp_path))
    assert str(tmp_path) in str(caught.value)


def test_unknown_folder_is_named(tmp_path):
    with pytest.raises(ModelError, match="nowhere"):
        load_model(str(tmp_path / "nowhere"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"padding": "reflect"}, ["latest_net_G4.pth", "conv_block.2.weight", "reflect"]),
        ({"upsample": "resize_conv"}, ["latest_net_G4.pth", "resize_conv"]),
        ({"norm": "instance"}, ["latest_net_G4.pth", "instance", "bias"]),
        ({"net_gs": "unet_64", "scale_size": 64}, ["latest_net_G51.pth", "unet_64"]),
        ({"net_g": "unet_32"}, ["latest_net_G4.pth", "model.model.0.weight"]),
    ],
)
def test_options_that_do_not_fit_the_weights(options, words, tmp_path):
    write(tmp_path, options=options)
    with pytest.raises(ModelError) as caught:
        load_model(str(tmp_path))
    assert all(word in str(caught.value) for word in words)


def _damage(state, how):
    name = "model.4.weight"
    if how == "shape":
        state[name] = state[name][:, :1]
    elif how == "missing":
        del state[name]
    elif how == "extra":
        state["model.99.weight"] = torch.zeros(1)
    elif how == "whole numbers":
        state[name] = state[name].to(torch.int64)
    elif how == "expanded":
        state[name] = torch.zeros(1).expand(state[name].shape)
    return state


@pytest.mark.parametrize("form", ["eager", "serialized"])
@pytest.mark.parametrize("how", ["shape", "missing", "extra", "whole numbers", "expanded"])
def test_wrong_weights_are_named(how, form, tmp_path, eager):
    shutil.copy(eager / "train_opt.txt", tmp_path)
    for name in ("G4", "G51", "G55"):
        state = torch.load(eager / f"latest_net_{name}.pth", weights_only=True)
        if name == "G4":
            state = _damage(state, how)
        if form == "eager":
            torch.save(state, tmp_path / f"latest_net_{name}.pth")
        else:
            as_torchscript(state, tmp_path / f"{name}.pt")
    with pytest.raises(ModelError, match=r"G4\.p.*model\.(4|99)\.weight"):
        load_model(str(tmp_path))


class _Attack:
    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self):
        return os.system, (f"touch {self.witness}",)


def _zip_pickle(path: Path, payload: bytes) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("net/data.pkl", payload)
        archive.writestr("net/version", "3")
        archive.writestr("net/byteorder", "little")


@pytest.mark.parametrize("file", ["latest_net_G4.pth", "G4.pt"])
@pytest.mark.parametrize("container", ["plain", "zip", "nested"])
def test_malicious_pickle_is_refused_and_not_run(file, container, tmp_path, eager):
    form = "eager" if file.endswith("pth") else "serialized"
    folder, witness = write(tmp_path / "model", form=form), tmp_path / "witness"
    attack = _Attack(witness)
    if container == "plain":
        (folder / file).write_bytes(pickle.dumps(attack, 2))
    elif container == "zip":
        _zip_pickle(folder / file, pickle.dumps(attack, 2))
    else:
        _zip_pickle(folder / file, pickle.dumps({"model.1.weight": attack}, 2))
    with pytest.raises(ModelError, match=file):
        load_model(str(folder))
    assert not witness.exists()


@pytest.mark.parametrize("line", ["norm: __import__('os').system('touch {}')", "scale_size: exec('1')"])
def test_malicious_options_are_refused_and_not_run(line, tmp_path, eager):
    shutil.copytree(eager, tmp_path / "model")
    witness = tmp_path / "witness"
    (tmp_path / "model" / "train_opt.txt").write_text(line.format(witness))
    with pytest.raises(ModelError, match=r"train_opt\.txt"):
        load_model(str(tmp_path / "model"))
    assert not witness.exists()


@pytest.mark.parametrize("file", ["latest_net_G4.pth", "G4.pt"])
@pytest.mark.parametrize("content", ["empty", "text", "cut", "flipped", "bomb", "list"])
def test_damaged_files_are_refused(file, content, tmp_path, monkeypatch):
    form = "eager" if file.endswith("pth") else "serialized"
    path = write(tmp_path, form=form) / file
    good = path.read_bytes()
    if content == "bomb":
        monkeypatch.setattr("deepliif_ray.models.archive.MAX_BYTES", 1 << 20)
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("net/data.pkl", pickle.dumps({}, 2))
            archive.writestr("net/data/0", bytes(2 << 20))
        bad = buffer.getvalue()
    elif content == "list":
        buffer = io.BytesIO()
        torch.save([torch.zeros(3)], buffer)
        bad = buffer.getvalue()
    else:
        middle = len(good) // 2
        bad = {
            "empty": b"",
            "text": b"version https://git-lfs.github.com/spec/v1\n",
            "cut": good[:middle],
            "flipped": bytes(255 - b for b in good[:4000]) + good[4000:],
        }[content]
    path.write_bytes(bad)
    with pytest.raises(ModelError, match=file):
        load_model(str(tmp_path))


def test_options_that_are_no_text(tmp_path, eager):
    shutil.copytree(eager, tmp_path, dirs_exist_ok=True)
    (tmp_path / "train_opt.txt").write_bytes(b"\xff\xfe\x00model")
    with pytest.raises(ModelError, match=r"train_opt\.txt"):
        load_model(str(tmp_path))


def test_modality_that_the_model_lacks(eager):
    with pytest.raises(ConfigError, match="Hema, DAPI, Lap2, Marker"):
        load_model(str(eager), modalities=["CD3"])


def test_all_networks_can_be_read(eager):
    checkpoint = load_checkpoint(str(eager), ["Hema", "DAPI", "Lap2", "Marker"])
    assert set(checkpoint.translators) == set(range(TRANSLATORS))


@pytest.mark.parametrize("kind", ["meta", "sparse", "repeated", "views"])
def test_tensors_that_pretend_to_be_large_are_refused(kind, tmp_path, monkeypatch):
    path = write(tmp_path, form="eager") / "latest_net_G4.pth"
    numbers = torch.ones(1000)
    state = {
        "meta": {"a": torch.empty(10**12, device="meta")},
        "sparse": {"a": torch.sparse_coo_tensor([[0]], [1.0], (10**12,))},
        "repeated": {"a": numbers[:1].expand(10**9)},
        "views": {f"a{n}": numbers.view(10, 100) for n in range(1000)},
    }[kind]
    if kind == "views":
        monkeypatch.setattr("deepliif_ray.models.archive.MAX_BYTES", 1 << 20)
    torch.save(state, path)
    assert path.stat().st_size < 1 << 20
    with pytest.raises(ModelError, match=r"latest_net_G4\.pth"):
        load_model(str(tmp_path))


def test_modules_that_name_each_other_over_and_over_are_refused(tmp_path):
    """Each of 40 modules names the next twice: as a tree they would be a million million."""
    path = write(tmp_path, form="serialized") / "G4.pt"
    new = b"c__torch__\nM\n)\x81"
    opcodes = b"\x80\x02" + new + b"q\x00"
    for level in range(40):
        inner = bytes([level])
        state = b"}(X\x01\0\0\0ah" + inner + b"X\x01\0\0\0bh" + inner + b"u"
        opcodes += b"0" + new + state + b"bq" + bytes([level + 1])
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("net/data.pkl", opcodes + b".")
    with pytest.raises(ModelError, match=r"G4\.pt.*two others"):
        load_model(str(tmp_path))


def test_modules_nested_too_deeply_are_refused(tmp_path):
    path = write(tmp_path, form="serialized") / "G4.pt"
    new = b"c__torch__\nM\n)\x81"
    opcodes = b"\x80\x02" + new
    for _ in range(65):  # each names the one before
        opcodes += b"q\x000" + new + b"}X\x01\0\0\0ah\x00sb"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("net/data.pkl", opcodes + b".")
    with pytest.raises(ModelError, match=r"G4\.pt.*nested too deeply"):
        load_model(str(tmp_path))


def test_an_archive_of_too_many_entries_is_refused(tmp_path):
    path = write(tmp_path, form="serialized") / "G4.pt"
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(20_001):
            archive.writestr(str(number), b"")
    with pytest.raises(ModelError, match=r"G4\.pt: unpacks to 20001 entries"):
        load_model(str(tmp_path))
