"""The package's version, alone and in the form of OpenVINO's `get_version()`."""

from __future__ import annotations

__version__ = "0.2.0"

# OpenVINO's string is <version>-<build number>-<commit>-<branch>. ovjit is installed from sources without a
# build number or commit, and the two fields say so. Programs split the string at "-".
_BUILD = "0"
_COMMIT = "source"


#: The release of OpenVINO whose API this is: programs that think they use it choose by its number.
OPENVINO = "2026.4.1"

#: The release of ONNX Runtime whose Python API `ovjit.onnxruntime` has.
ONNXRUNTIME = "1.32.0"


def openvino_version() -> str:
    """OpenVINO's version number in its format; the name of ovjit replaces the commit."""
    major, minor = OPENVINO.split(".")[:2]
    return f"{OPENVINO}-{_BUILD}-ovjit{__version__}-releases/{major}/{minor}"


_stands_in = False


def stand_in_for_openvino() -> None:
    """Make `get_version` return OpenVINO's version from now on, for programs that import the package as
    openvino."""
    global _stands_in
    _stands_in = True


def get_version() -> str:
    """`0.2.0-0-source-releases/0/2`, formed as OpenVINO's `2026.4.1-22982-e213a147257-releases/2026/4`."""
    if _stands_in:
        return openvino_version()
    major, minor = __version__.split(".")[:2]
    return f"{__version__}-{_BUILD}-{_COMMIT}-releases/{major}/{minor}"
