"""Compiles the kernels in CUDA C++ as a run does, without a GPU: NVRTC needs none.

    python -m venv /tmp/nvrtc && /tmp/nvrtc/bin/pip install nvidia-cuda-nvrtc
    /tmp/nvrtc/bin/python tests/kernels.py

Prints each kernel with its number of parameters, or what the compiler says (exit code 1).
"""

import ctypes
import pathlib
import re
import sys

import nvidia

FOLDER = pathlib.Path(__file__).parents[1] / "src/models/nn/fused/nvidia"


def library():
    """NVRTC as the package from PyPI has it."""
    found = [path for root in nvidia.__path__ for path in pathlib.Path(root).glob("**/libnvrtc.so.*")]
    return ctypes.CDLL(str(found[0]))


def source():
    """The files of `SOURCE` in `kernels.rs`, in its order."""
    names = re.findall(r'include_str!\("(cuda/\w+\.cu)"\)', (FOLDER / "kernels.rs").read_text())
    return "".join((FOLDER / name).read_text() for name in names)


def compiled(nvrtc, text, architecture):
    """The PTX, or nothing and what the compiler says."""
    program = ctypes.c_void_p()
    nvrtc.nvrtcCreateProgram(ctypes.byref(program), text.encode(), b"kernels.cu", 0, None, None)
    option = f"--gpu-architecture={architecture}".encode()
    failed = nvrtc.nvrtcCompileProgram(program, 1, (ctypes.c_char_p * 1)(option))
    what = "ProgramLog" if failed else "PTX"
    size = ctypes.c_size_t()
    getattr(nvrtc, f"nvrtcGet{what}Size")(program, ctypes.byref(size))
    answer = ctypes.create_string_buffer(size.value)
    getattr(nvrtc, f"nvrtcGet{what}")(program, answer)
    return not failed, answer.value.decode()


def main():
    nvrtc, text = library(), source()
    for architecture in ["compute_80", "compute_90"]:
        works, answer = compiled(nvrtc, text, architecture)
        if not works:
            sys.exit(f"{architecture}:\n{answer}")
        entries = re.findall(r"\.entry (\w+)\((.*?)\)", answer, re.S)
        print(f"{architecture}: {len(entries)} kernels, {len(answer) // 1024} KiB")
        for name, params in entries if architecture == "compute_80" else []:
            print(f"  {name}: {params.count('.param')}")


if __name__ == "__main__":
    main()
