"""Compares the kernels of attention with PyTorch's on a GPU: results, whether they repeat, and times.

`python benches/gpu/attention.py` needs PyTorch and cuda-bindings; nothing of ours has to be compiled.
"""
import ctypes, math, pathlib
import torch
from cuda.bindings import driver, nvrtc
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

SOURCES = pathlib.Path(__file__).parents[2] / "src/models/nn/fused/nvidia/cuda"
SIZES = [(2, 3, 37, 70), (1, 32, 660, 128), (2, 4, 200, 64), (2, 48, 2926, 2926)]
HEAD = 64


class View(ctypes.Structure):
    """`View` of common.cu."""
    _fields_ = [("data", ctypes.c_uint64), ("batch", ctypes.c_int64), ("head", ctypes.c_int64), ("row", ctypes.c_int64)]


def checked(result):
    assert int(result[0]) == 0, result
    return result[1] if len(result) == 2 else result[1:]


def load_kernels():
    source = "".join((SOURCES / name).read_text() for name in ("common.cu", "attention.cu"))
    program = checked(nvrtc.nvrtcCreateProgram(source.encode(), b"attention.cu", 0, [], []))
    checked(nvrtc.nvrtcCompileProgram(program, 1, [b"--gpu-architecture=compute_80"]))
    ptx = b" " * checked(nvrtc.nvrtcGetPTXSize(program))
    checked(nvrtc.nvrtcGetPTX(program, ptx))
    torch.zeros(1, device="cuda")
    return checked(driver.cuModuleLoadData(ptx))


class Attention:
    """Forward and backward pass as steps, with what they write."""

    def __init__(self, module, q, k, v, grad):
        self.module, (batch, heads, queries, _), keys = module, q.shape, k.shape[2]
        empty = lambda *shape, dtype=torch.bfloat16: torch.full(shape, float("nan"), device="cuda", dtype=dtype)
        self.out, self.dq = (empty(batch, heads, queries, HEAD) for _ in range(2))
        self.dk, self.dv = (empty(batch, heads, keys, HEAD) for _ in range(2))
        levels, means = (empty(batch, heads, queries, dtype=torch.float32) for _ in range(2))
        sizes = [ctypes.c_int(heads), ctypes.c_int(queries), ctypes.c_int(keys), ctypes.c_float(math.log2(math.e) / HEAD**0.5)]
        view = lambda x: View(x.data_ptr(), x.stride(0), x.stride(1), x.stride(2))
        at = lambda x: ctypes.c_uint64(x.data_ptr())
        q, k, v, grad, out = map(view, (q, k, v, grad, self.out))
        dq, dk, dv, levels, means = view(self.dq), view(self.dk), view(self.dv), at(levels), at(means)
        launch = lambda name, rows, of, *own: lambda: self.launch(name, -(-rows // of), batch * heads, *own)
        self.steps = dict(
            forward=launch("attention", queries, 128, q, k, v, out, *sizes),
            levels=launch("attention_levels", queries, 128, q, k, levels, *sizes),
            means=launch("attention_means", queries, 4, out, grad, means, *sizes[:2]),
            queries=launch("attention_queries_grad", queries, 64, q, k, v, grad, dq, levels, means, *sizes),
            keys=launch("attention_keys_grad", keys, 64, q, k, v, grad, dk, dv, levels, means, *sizes))

    def launch(self, name, x, y, *arguments):
        function = checked(driver.cuModuleGetFunction(self.module, name.encode()))
        pointers = (ctypes.c_void_p * len(arguments))(*map(ctypes.addressof, arguments))
        stream = torch.cuda.current_stream().cuda_stream
        checked(driver.cuLaunchKernel(function, x, y, 1, 128, 1, 1, 0, stream, ctypes.addressof(pointers), 0))

    def run(self):
        for step in self.steps.values():
            step()
        torch.cuda.synchronize()
        return self.out, self.dq, self.dk, self.dv


def reference(inputs, grad, dtype, backends):
    inputs = [x.to(dtype).contiguous().requires_grad_() for x in inputs]
    with sdpa_kernel(backends):
        out = scaled_dot_product_attention(*inputs)
        return (out, *torch.autograd.grad(out, inputs, grad.to(dtype)))


def milliseconds(call, repeats=10):
    call()
    torch.cuda.synchronize()
    times = []
    for _ in range(repeats):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        call()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end))
    return sorted(times)[repeats // 2]


def main():
    module = load_kernels()
    torch.manual_seed(0)
    for batch, heads, queries, keys in SIZES:
        # Heads between tokens, as a transformer has them.
        draw = lambda rows: (torch.randn(batch, rows, heads, HEAD, device="cuda") * 1.5).bfloat16().transpose(1, 2)
        q, k, v, grad = draw(queries), draw(keys), draw(keys), draw(queries)
        small = batch * heads * queries * keys < 3e8
        exact = reference((q, k, v), grad, torch.float64 if small else torch.float32,
                          [SDPBackend.MATH] if small else [SDPBackend.EFFICIENT_ATTENTION])
        theirs = reference((q, k, v), grad, torch.bfloat16, [SDPBackend.FLASH_ATTENTION])
        ours = Attention(module, q, k, v, grad)
        found = [x.clone() for x in ours.run()]
        error = lambda x, y: f"{((x.double() - y.double()).norm() / y.double().norm()).item():.2e}"
        print((batch, heads, queries, keys), "ours", [error(x, y) for x, y in zip(found, exact)],
              "PyTorch", [error(x, y) for x, y in zip(theirs, exact)],
              "repeats" if all(map(torch.equal, found, ours.run())) else "DOES NOT REPEAT")
        if small:
            continue
        print("  ours", {name: f"{milliseconds(step):.3f} ms" for name, step in ours.steps.items()})
        leaves = [x.contiguous().requires_grad_() for x in (q, k, v)]
        for backend in (SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION):
            with sdpa_kernel([backend]):
                forward = lambda: scaled_dot_product_attention(*leaves)
                out = forward()
                backward = lambda: torch.autograd.grad(out, leaves, grad, retain_graph=True)
                print("  PyTorch", backend.name, f"forward {milliseconds(forward):.3f} ms, backward {milliseconds(backward):.3f} ms")


if __name__ == "__main__":
    main()
