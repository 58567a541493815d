import json
import os

import numpy as np
import pytest

import minitorch_attn as mt
from minitorch_attn import nn
from minitorch_attn.serialization import read_metadata

safetensors_numpy = pytest.importorskip("safetensors.numpy")

DTYPES = ["float64", "float32", "float16", "bool"]
DTYPES += [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)]


@pytest.mark.parametrize("dtype", DTYPES)
def test_values_of_every_dtype_come_back(tmp_path, dtype):
    x = np.array([[0, 1, 2], [3, 4, 5]]).astype(dtype)
    mt.save({"x": mt.tensor(x), "array": x[:, ::2], "scalar": x[1, 1]}, tmp_path / "x.safetensors")
    loaded = mt.load(tmp_path / "x.safetensors")
    for name, expected in {"x": x, "array": x[:, ::2]}.items():
        assert isinstance(loaded[name], mt.Tensor) and loaded[name].dtype == dtype
        np.testing.assert_array_equal(loaded[name].numpy(), expected)
    assert loaded["scalar"] == x[1, 1]


def test_a_transposed_array_keeps_its_values(tmp_path):
    x = np.arange(6.0).reshape(2, 3)
    mt.save({"x": x.T}, tmp_path / "x.safetensors")
    np.testing.assert_array_equal(mt.load(tmp_path / "x.safetensors")["x"].numpy(), x.T)


def test_what_was_loaded_can_be_written_to(tmp_path):
    mt.save({"x": mt.ones(2)}, tmp_path / "x.safetensors")
    x = mt.load(tmp_path / "x.safetensors")["x"]
    x[0] = 5
    assert x.tolist() == [5, 1]


def test_shapes_without_axes_or_elements_come_back(tmp_path):
    mt.save({"empty": mt.zeros(0, 3), "scalar": mt.tensor(2.5)}, tmp_path / "x.safetensors")
    loaded = mt.load(tmp_path / "x.safetensors")
    assert loaded["empty"].shape == (0, 3) and loaded["scalar"].shape == ()
    assert loaded["scalar"].item() == 2.5


def test_a_state_dict_is_a_plain_safetensors_file(tmp_path):
    net = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    mt.save(net.state_dict(), tmp_path / "net.safetensors", metadata={"epoch": 3})
    plain = safetensors_numpy.load_file(tmp_path / "net.safetensors")
    assert plain.keys() == net.state_dict().keys()
    assert read_metadata(tmp_path / "net.safetensors") == {"epoch": "3"}
    other = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    other.load_state_dict(mt.load(tmp_path / "net.safetensors"))
    np.testing.assert_array_equal(other[0].weight.numpy(), net[0].weight.numpy())


def test_a_checkpoint_of_several_states_keeps_its_structure(tmp_path):
    state = {
        "model": {"0.weight": mt.ones(2)},
        "history": [{"loss": 0.5, "ok": True}, {"loss": float("inf"), "note": None}],
        "rng": np.random.default_rng(0).bit_generator.state,
        "empty": {},
        "betas": (0.9, np.float64(0.999)),
        "name": "größe",
    }
    mt.save(state, tmp_path / "c.safetensors", metadata={"made": "today"})
    loaded = mt.load(tmp_path / "c.safetensors")
    assert loaded["model"]["0.weight"].tolist() == [1, 1]
    assert loaded["betas"] == [0.9, 0.999]
    for name in ("history", "rng", "empty", "name"):
        assert loaded[name] == state[name]
    assert read_metadata(tmp_path / "c.safetensors") == {"made": "today"}
    assert list(safetensors_numpy.load_file(tmp_path / "c.safetensors")) == ["model.0.weight"]


def test_an_empty_state_comes_back(tmp_path):
    mt.save({}, tmp_path / "x.safetensors")
    assert mt.load(tmp_path / "x.safetensors") == {} == read_metadata(tmp_path / "x.safetensors")


# -- files of PyTorch -----------------------------------------------------------------------


def torch_net(torch):
    return torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3, bias=False), torch.nn.BatchNorm2d(4), torch.nn.ReLU()
    )


def our_net():
    return nn.Sequential(nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU())


def test_a_file_of_pytorchs_state_dict_loads_unchanged(tmp_path):
    torch = pytest.importorskip("torch")
    theirs = torch_net(torch)
    x = np.random.default_rng(0).standard_normal((3, 1, 5, 5)).astype("float32")
    for _ in range(3):
        theirs(torch.tensor(x))
    path = tmp_path / "theirs.safetensors"
    pytest.importorskip("safetensors.torch").save_file(theirs.state_dict(), path)
    ours = our_net()
    ours.load_state_dict(mt.load(path))
    assert ours[1].num_batches_tracked.item() == 3
    assert ours[1].num_batches_tracked.dtype == np.int64
    with mt.no_grad():
        y = ours.eval()(mt.tensor(x)).numpy()
    np.testing.assert_allclose(y, theirs.eval()(torch.tensor(x)).detach().numpy(), atol=1e-6)


def test_pytorch_reads_our_file(tmp_path):
    torch = pytest.importorskip("torch")
    ours, theirs = our_net(), torch_net(torch)
    mt.save(ours.state_dict(), tmp_path / "ours.safetensors")
    loaded = pytest.importorskip("safetensors.torch").load_file(tmp_path / "ours.safetensors")
    theirs.load_state_dict(loaded)
    np.testing.assert_array_equal(theirs[0].weight.detach().numpy(), ours[0].weight.numpy())


@pytest.mark.parametrize(("dtype", "loaded_as"), [("bfloat16", "float32"), ("float16", "float16")])
def test_half_precision_is_loaded_exactly(tmp_path, dtype, loaded_as):
    torch = pytest.importorskip("torch")
    theirs = torch_net(torch).to(getattr(torch, dtype))
    weight = theirs[0].weight.detach()
    path = tmp_path / "half.safetensors"
    pytest.importorskip("safetensors.torch").save_file(theirs.state_dict(), path)
    loaded = mt.load(path)
    assert loaded["0.weight"].dtype == loaded_as
    np.testing.assert_array_equal(loaded["0.weight"].numpy(), weight.float().numpy())
    ours = our_net()
    ours.load_state_dict(loaded)
    assert ours[0].weight.dtype == np.float32
    np.testing.assert_array_equal(ours[0].weight.numpy(), weight.float().numpy())


def test_types_that_numpy_does_not_have_are_named(tmp_path):
    torch = pytest.importorskip("torch")
    path = tmp_path / "x.safetensors"
    x = torch.ones(2).to(torch.float8_e4m3fn)
    pytest.importorskip("safetensors.torch").save_file({"x": x}, path)
    with pytest.raises(mt.DTypeError, match="'x' holds numbers of type F8_E4M3, which NumPy"):
        mt.load(path)


@pytest.mark.parametrize("new_format", [True, False])
def test_a_pickle_is_refused_and_its_conversion_explained(tmp_path, new_format):
    torch = pytest.importorskip("torch")
    path = tmp_path / "model.pt"
    torch.save(torch_net(torch).state_dict(), path, _use_new_zipfile_serialization=new_format)
    with pytest.raises(ValueError, match=r"model.pt is a pickle .* torch.load\('model.pt'"):
        mt.load(path)


# -- damaged files --------------------------------------------------------------------------


@pytest.mark.parametrize("kept", [0, 4, 8, 40, -1])
def test_a_file_that_was_cut_off_is_recognised(tmp_path, kept):
    path = tmp_path / "x.safetensors"
    mt.save({"x": mt.ones(10), "y": mt.ones(3)}, path)
    path.write_bytes(path.read_bytes()[:kept])
    for read in (mt.load, read_metadata):
        with pytest.raises(ValueError, match="x.safetensors is not complete, or no safetensors"):
            read(path)


def test_the_message_says_how_much_is_missing(tmp_path):
    path = tmp_path / "x.safetensors"
    mt.save({"x": mt.ones(1000)}, path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1000])
    message = f"should have {len(whole):,} bytes and has {len(whole) - 1000:,}"
    with pytest.raises(ValueError, match=message):
        mt.load(path)


@pytest.mark.parametrize(
    "content", [b"hello, this is no such file", (5).to_bytes(8, "little") + b"{{{{{" + bytes(99)]
)
@pytest.mark.parametrize("read", [mt.load, read_metadata])
def test_another_file_is_no_safetensors_file(tmp_path, read, content):
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="no safetensors file"):
        read(path)


def test_a_header_that_points_outside_is_an_error(tmp_path):
    header = json.dumps({"x": {"dtype": "F32", "shape": [9], "data_offsets": [0, 8]}}).encode()
    path = tmp_path / "x.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    with pytest.raises(ValueError, match="is damaged, or no safetensors file"):
        mt.load(path)


# -- saving ---------------------------------------------------------------------------------


def test_a_save_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "x.safetensors"
    mt.save({"x": mt.ones(1)}, path)

    def no_space(descriptor):
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(OSError, match="No space left"):
        mt.save({"x": mt.zeros(1)}, path)
    assert os.listdir(tmp_path) == ["x.safetensors"]
    assert mt.load(path)["x"].tolist() == [1]


def test_a_saved_file_has_the_rights_of_any_new_file(tmp_path):
    (tmp_path / "plain").write_bytes(b"")
    mt.save({"x": mt.ones(1)}, tmp_path / "x.safetensors")
    assert (tmp_path / "x.safetensors").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_what_cannot_be_saved_is_named(tmp_path):
    path = tmp_path / "x.safetensors"
    with pytest.raises(TypeError, match="not a Linear: pass its .state_dict"):
        mt.save(nn.Linear(1, 1), path)
    with pytest.raises(TypeError, match="'model' is a Linear: pass its .state_dict"):
        mt.save({"model": nn.Linear(1, 1)}, path)
    with pytest.raises(TypeError, match="'a.0.b' is a set, which cannot be saved"):
        mt.save({"a": [{"b": set()}]}, path)
    with pytest.raises(TypeError, match="keys must be strings, not 3 .in 'state'"):
        mt.save({"state": {3: mt.ones(1)}}, path)
    with pytest.raises(ValueError, match="two arrays of the state would have the one name 'a.b'"):
        mt.save({"a": {"b": mt.ones(1)}, "a.b": mt.ones(1)}, path)
    assert not path.exists()


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.safetensors"):
        mt.load(tmp_path / "nowhere.safetensors")
