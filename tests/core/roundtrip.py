"""Files written by PyTorch, NumPy and Pillow are read by ect with equal values, and ect's by them. Prints TAP lines of its own.
usage: roundtrip.py DIR ECT [RUN LEDGER]"""
import io, json, os, pickle, struct, subprocess, sys, zipfile, zlib

import numpy as np
import torch

here, ect = sys.argv[1], sys.argv[2]
ST = {torch.float32: "F32", torch.float64: "F64", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64", torch.int32: "I32",
      torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL"}
NP = {"f4": "F32", "f8": "F64", "f2": "F16", "i8": "I64", "i4": "I32", "i2": "I16", "i1": "I8", "u1": "U8", "b1": "BOOL", "u2": "U16",
      "u4": "U32", "u8": "U64"}


def told(x):
    """dtype, shape and CRC of a tensor or array."""
    if isinstance(x, torch.Tensor):
        x = x.detach().contiguous()
        raw = x.view(torch.int16).numpy() if x.dtype == torch.bfloat16 and x.numel() else x.float().numpy() if x.dtype == torch.bfloat16 else x.numpy()
        return [ST[x.dtype], list(x.shape), zlib.crc32(raw.tobytes()) if x.numel() else 0]
    x = np.asarray(x)
    return [NP[x.dtype.str[1:]], list(x.shape), zlib.crc32(np.ascontiguousarray(x).tobytes())]


def line(ok, name, why=""):
    print(("ok" if ok else "not ok"), "-", name)
    if not ok:
        print("#", str(why)[:600])


def inspect(path):
    p = subprocess.run([ect, "inspect", "--json", path], capture_output=True, text=True)
    if p.returncode:
        return None, p.stderr
    got = json.loads(p.stdout)
    return {t["name"]: [t["dtype"], t["shape"], t["crc32"]] for t in got["tensors"]}, got["kind"]


def same(name, path, want, kind=None):
    got, said = inspect(path)
    want = {k: told(v) for k, v in want.items()}
    if got is None:
        return line(False, name, said)
    wrong = [k for k in sorted(set(want) | set(got)) if want.get(k) != got.get(k)]
    line(not wrong and (kind is None or kind == said), name, [(k, want.get(k), got.get(k)) for k in wrong[:4]] + [said])


def at(name):
    return os.path.join(here, name)


torch.manual_seed(1)
base = torch.randn(50)
grid = torch.randn(6, 10)
tensors = {
    "f32": torch.randn(3, 4, 5), "f64": torch.randn(7, dtype=torch.float64), "f16": torch.randn(5, 3).half(), "bf16": torch.randn(4, 2).bfloat16(),
    "i64": torch.tensor([-2**62, 0, 2**62]), "i32": torch.arange(-5, 5, dtype=torch.int32), "i16": torch.arange(9, dtype=torch.int16),
    "i8": torch.arange(-3, 3, dtype=torch.int8), "u8": torch.arange(200, 230, dtype=torch.uint8), "bool": torch.tensor([True, False, True]),
    "scalar": torch.tensor(2.5), "empty": torch.zeros(0, 3), "transposed": grid.t(), "strided": grid[::2, 1::3], "row": grid[3],
    "shared": base, "offset": base[10:30], "every": base[::7], "expanded": torch.randn(1, 6).expand(4, 6), "last": torch.randn(2, 3, 4, 5).permute(0, 2, 3, 1),
    "param": torch.nn.Parameter(torch.randn(2, 2)), "special": torch.tensor([float("nan"), float("inf"), -0.0])}
nested = {"a": {"b": [tensors["f32"], (tensors["i64"],)], "lr": 1e-3}, 3: tensors["scalar"], "model": dict(tensors)}
flat = {"a/b/0": tensors["f32"], "a/b/1/0": tensors["i64"], "3": tensors["scalar"], **{"model/" + k: v for k, v in tensors.items()}}

torch.save(tensors, at("zip.pth"))
same("torch.save", at("zip.pth"), tensors, "torch zip")
torch.save(nested, at("nested.pth"))
same("torch.save of a tree", at("nested.pth"), flat, "torch zip")
torch.save(nested, at("p4.pth"), pickle_protocol=4)
same("torch.save, protocol 4", at("p4.pth"), flat)
torch.save(nested, at("legacy.pth"), _use_new_zipfile_serialization=False)
same("torch.save, before 1.6", at("legacy.pth"), flat, "torch legacy")
for p in (2, 3, 4, 5):
    with open(at("plain%d.pkl" % p), "wb") as f:
        pickle.dump(nested, f, protocol=p)
    same("pickle.dump, protocol %d" % p, at("plain%d.pkl" % p), flat, "pickle")

net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Sequential(torch.nn.Linear(4, 2, bias=False)))
opt = torch.optim.RAdam(net.parameters(), lr=0.1)
net[2](net[1](net[0](torch.randn(2, 3, 5, 5))).mean((2, 3))).sum().backward()
opt.step()
state = {k: v for k, v in net.state_dict().items()}
torch.save(net.state_dict(), at("state.pth"))
same("a state_dict", at("state.pth"), state)
torch.save(net, at("module.pth"))
same("a whole module", at("module.pth"), state)
torch.save(net, at("oldmodule.pth"), _use_new_zipfile_serialization=False)
same("a whole module, before 1.6", at("oldmodule.pth"), state, "torch legacy")
torch.save({"net": net, "optimizer_state": opt.state_dict()}, at("training.pt"))
want = {"net/" + k: v for k, v in state.items()}
for i, s in opt.state_dict()["state"].items():
    want.update({"optimizer_state/state/%d/%s" % (i, k): v for k, v in s.items() if isinstance(v, torch.Tensor)})
same("module and optimiser", at("training.pt"), want)
torch.jit.script(net.eval()).save(at("script.pt"))
same("TorchScript", at("script.pt"), state, "torchscript")

arrays = {"f8": np.random.RandomState(1).randn(3, 4), "f4": np.arange(5, dtype=np.float32), "f2": np.arange(3, dtype=np.float16), "i8": np.arange(4),
          "u1": np.arange(250, 256).astype(np.uint8), "u2": np.arange(3, dtype=np.uint16), "u4": np.arange(3, dtype=np.uint32), "b": np.array([True, False]),
          "u8": np.arange(3, dtype=np.uint64), "fortran": np.asfortranarray(np.random.RandomState(2).randn(3, 4, 2)), "scalar": np.array(3.5), "empty": np.zeros((0, 2)), "zeros": np.zeros((100, 1000))}
np.savez(at("a.npz"), **arrays)
same("numpy.savez", at("a.npz"), arrays, "npz")
np.savez_compressed(at("c.npz"), **arrays)
same("numpy.savez_compressed", at("c.npz"), arrays, "npz")
np.save(at("a.npy"), arrays["fortran"])
same("numpy.save", at("a.npy"), {"arr_0": arrays["fortran"]}, "npy")
for p in (2, 4, 5):
    with open(at("numpy%d.pkl" % p), "wb") as f:
        pickle.dump(arrays, f, protocol=p)
    same("arrays in a pickle, protocol %d" % p, at("numpy%d.pkl" % p), arrays, "pickle")
np.save(at("object.npy"), np.array([{}], dtype=object), allow_pickle=True)
got, said = inspect(at("object.npy"))
line(got is None and "Python objects" in said, "an array of objects is refused", said)
np.save(at("big.npy"), np.arange(3).astype(">f8"))
got, said = inspect(at("big.npy"))
line(got is None and "big-endian" in said, "a big-endian array is refused", said)


class Evil:
    def __reduce__(self):
        return (os.system, ("touch pwned.mark",))


for name, save in {"evil.pkl": lambda f: pickle.dump({"a": Evil()}, f), "evil.pth": lambda f: torch.save({"a": Evil()}, f)}.items():
    with open(at(name), "wb") as f:
        save(f)
    got, said = inspect(at(name))
    line(got is None and "system" in said and not os.path.exists("pwned.mark"), "%s is refused by name" % name, said)

# ---- ours, read there ----------------------------------------------------------------------------------------------------


def safetensors(path):
    with open(path, "rb") as f:
        b = f.read()
    n = struct.unpack("<Q", b[:8])[0]
    head = json.loads(b[8:8 + n])
    meta = head.pop("__metadata__")
    kinds = {"F32": "<f4", "F16": "<f2", "F64": "<f8", "I64": "<i8", "U8": "|u1"}
    return {k: np.frombuffer(b[8 + n + v["data_offsets"][0]:8 + n + v["data_offsets"][1]], kinds[v["dtype"]]).reshape(v["shape"])
            for k, v in head.items()}, meta


subprocess.run([ect, "inspect", "--save", at("conv.safetensors"), at("state.pth")], check=True, capture_output=True)
got, meta = safetensors(at("conv.safetensors"))
net2 = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Sequential(torch.nn.Linear(4, 2, bias=False)))
net2.load_state_dict({k: torch.from_numpy(v.copy()) for k, v in got.items()})
line(all(torch.equal(a, b) for a, b in zip(net2.state_dict().values(), state.values())), "load_state_dict of converted weights")

if len(sys.argv) > 4:
    run, ledger = sys.argv[3], sys.argv[4]

    def go(*args):
        subprocess.run([ect, *args, "--ledger", ledger], check=True, capture_output=True)

    go("export", run, at("run.safetensors"), "--weights", "raw")
    got, meta = safetensors(at("run.safetensors"))
    config = json.loads(meta["config"])
    line(all(np.isfinite(v).all() for v in got.values()) and "model.enc.8x8_conv.weight" in got, "export is read")
    line(list(got["model.enc.8x8_conv.weight"].shape) == [config["model_channels"], config["img_channels"], 3, 3], "its config fits its tensors", config)
    for k in ("npz", "zip"):
        go("sample", run, "--seeds", "0-9", "--out", at("s." + k))
    go("sample", run, "--seeds", "0-9", "--out", at("images"))
    px = np.load(at("s.npz"))["images"]
    line(px.dtype == np.uint8 and px.shape == (10, 8, 8, 1), "samples as .npz", px.shape)
    try:
        from PIL import Image
    except ImportError:
        print("# Pillow is not here: images are not compared")
        sys.exit(0)
    with zipfile.ZipFile(at("s.zip")) as z:
        meta = json.loads(z.read("dataset.json"))
        names = sorted(n for n in z.namelist() if n.endswith(".png"))
        line(z.testzip() is None and meta == {"labels": None} and len(names) == 10, "samples as a zip data set", names)
        line(all((np.array(Image.open(io.BytesIO(z.read(n)))) == px[i, :, :, 0]).all() for i, n in enumerate(names)), "its images are the same")
    line(all((np.array(Image.open(at("images/%06d.png" % i))) == px[i, :, :, 0]).all() for i in range(10)), "and those of a folder")
