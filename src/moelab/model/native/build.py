"""Compile `kernels.c`, which includes its siblings, once per machine into the user's cache; or give the reason why not.

The library is plain C called through ctypes: no PyTorch headers, a few seconds, and nothing to install. Set
MOELAB_NATIVE=0 to do without it. The file's name is a hash of source, flags, compiler and processor.
"""

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
from functools import lru_cache
from pathlib import Path

from moelab.errors import MoelabError
from moelab.files import write_with

SOURCE = Path(__file__).with_name("kernels.c")
_FLAGS = ["-O3", "-march=native", "-std=gnu11", "-shared", "-fPIC"]
_FLAGS += ["-fno-math-errno", "-fno-trapping-math", "-fno-signed-zeros", "-fassociative-math", "-ffp-contract=fast"]
_P, _L, _F, _I = ctypes.c_void_p, ctypes.c_long, ctypes.c_float, ctypes.c_int
SIGNATURES = {
    "plain_product": [_P] * 3 + [_L] * 3,
    "thin_product": [_P] * 3 + [_L] * 3 + [_I],
    "rms_norm": [_P] * 4 + [_L, _L, _F, _I],
    "rms_norm_backward": [_P] * 6 + [_L, _L],
    "rotary": [_P] * 6 + [_L] * 4 + [_F],
    "rotary_backward": [_P] * 8 + [_L] * 4,
    "attention": [_P] * 5 + [_L] * 5 + [_F, _I],
    "attention_backward": [_P] * 9 + [_L] * 5 + [_F, _I],
    "linear": [_P] * 3 + [_L] * 3 + [_I],
    "linear_backward": [_P] * 5 + [_L] * 3 + [_I],
    "linear_cross_entropy": [_P] * 7 + [_L] * 3 + [_I],
    "sort_by_expert": [_P] * 3 + [_L] * 2,
    "experts": [_P] * 8 + [_L] * 5 + [_I],
    "experts_backward": [_P] * 12 + [_L] * 5 + [_I],
    "decode": [_P] * 11 + [_L, _F, _F, _I],
}


@lru_cache(maxsize=1)
def load() -> tuple[ctypes.CDLL | None, str]:
    """The compiled kernels and where they lie, or None and the reason."""
    if os.environ.get("MOELAB_NATIVE", "1") == "0":
        return None, "switched off by MOELAB_NATIVE=0"
    compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("cc")
    if platform.system() != "Linux":
        return None, f"no native kernels on {platform.system()}"
    if not compiler:
        return None, "no C compiler found (gcc or cc); PyTorch's own operations are used"
    try:
        path = _library(compiler)
        library = ctypes.CDLL(str(path))
    except (OSError, subprocess.SubprocessError, MoelabError) as error:
        return None, f"the kernels did not compile: {str(error).splitlines()[0]}"
    for name, arguments in SIGNATURES.items():
        function = getattr(library, name)
        function.argtypes, function.restype = arguments, None
    return library, str(path)


def cache_folder() -> Path:
    """Where compiled kernels are kept: MOELAB_CACHE, else the user's cache folder."""
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(os.environ.get("MOELAB_CACHE") or Path(home) / "moelab")


def _library(compiler: str) -> Path:
    path = cache_folder() / f"kernels-{_key(compiler)}.so"
    if not path.exists():
        write_with(path, lambda temporary: _compile(compiler, temporary))
    return path


def _compile(compiler: str, target: Path) -> None:
    """Compile with OpenMP where the compiler has it, else without."""
    for openmp in (["-fopenmp"], []):
        command = [compiler, *_FLAGS, *openmp, "-o", str(target), str(SOURCE), "-lm"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        if done.returncode == 0:
            return
    raise MoelabError(done.stderr.strip() or f"{compiler} exited with {done.returncode}")


def _key(compiler: str) -> str:
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, timeout=30).stdout
    sources = [path.read_text() for path in sorted(SOURCE.parent.glob("*.c"))]
    content = "\n".join((*sources, " ".join(_FLAGS), version, _processor()))
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def _processor() -> str:
    """What -march=native depends on: the processor's flags."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    wanted = ("model name", "flags", "Features", "CPU part")
    return "\n".join(line for line in lines if line.startswith(wanted))[:4000]
