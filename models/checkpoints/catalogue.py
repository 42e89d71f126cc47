"""The published checkpoints this package can use: where they come from, what they allow, where they are looked for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

OURS = "face_video_restoration"
"""Name of our own model folder."""

FACE_FOLDERS = (OURS, "facerestore_models", "facedetection")
RESTORER_FOLDERS = (OURS, "facerestore_models", "upscale_models", "checkpoints")

APACHE = "Apache-2.0"
MIT = "MIT"
S_LAB = "S-Lab License 1.0"
UNSTATED = "licence not stated"


@dataclass(frozen=True)
class Checkpoint:
    """One published file.

    Attributes:
        name: its name in the catalogue and on the command line.
        file: file name as published.
        url: where it is published; a page if there is no direct link. To one that ends in a slash the file's name is added.
        purpose: what it does, in a few words.
        licence: of the weights, as stated by their authors.
        commercial_use: whether that licence allows it; None if it does not say.
        folders: names of the model folders that are searched, ours first.
        sha256: lower-case hex digits, all 64 or the prefix that is known, "" if none is.
        size: bytes, None if unknown.
        direct: whether `url` is the file itself.
        aliases: other file names the same file goes by, the published path below a folder among them.
    """

    name: str
    file: str
    url: str
    purpose: str
    licence: str
    commercial_use: bool | None
    folders: tuple[str, ...] = RESTORER_FOLDERS
    sha256: str = ""
    size: int | None = None
    direct: bool = True
    aliases: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.url.endswith("/"):
            object.__setattr__(self, "url", self.url + self.file)


_CODEFORMER = "https://github.com/sczhou/CodeFormer/releases/download/v0.1.0/"
_KEEP = "https://github.com/jnjaby/KEEP/releases/download/"
_DICFACE = "https://huggingface.co/fudan-generative-ai/DicFace_model/resolve/main/CodeFormer/"
_DIFFACE = "https://github.com/zsyOAOA/DifFace/releases/download/V1.0/"
_FLAIR = "https://github.com/wustl-cig/FLAIR"
_FACEXLIB = "https://github.com/xinntao/facexlib/releases/download/"
_GFPGAN = "https://github.com/TencentARC/GFPGAN/releases/download/v1.3.4/"
_RESTOREFORMER = "https://github.com/wzhouxiff/RestoreFormerPlusPlus/releases/download/v1.0.0/"

CATALOGUE: tuple[Checkpoint, ...] = (
    Checkpoint(
        "retinaface",
        "detection_Resnet50_Final.pth",
        f"{_FACEXLIB}v0.1.0/",
        "face detector RetinaFace-R50",
        MIT,
        True,
        FACE_FOLDERS,
        sha256="6d1de9c2944f2ccddca5f5e010ea5ae64a39845a86311af6fdf30841b0a5a16d",
        size=109_497_761,
    ),
    Checkpoint(
        "parsenet",
        "parsing_parsenet.pth",
        f"{_FACEXLIB}v0.2.2/",
        "face parsing for the paste mask",
        "MIT (facexlib); its origin PSFRGAN is CC BY-NC-SA, unverified",
        None,
        FACE_FOLDERS,
        sha256="3d558d8d0e42c20224f13cf5a29c79eba2d59913419f945545d8cf7b72920de2",
        size=85_331_193,
    ),
    Checkpoint(
        "arcface",
        "recognition_arcface_ir_se50.pth",
        f"{_FACEXLIB}v0.1.0/",
        "identity embedding for the metric",
        UNSTATED,
        None,
        FACE_FOLDERS,
        sha256="a035c768259b98ab1ce0e646312f48b9e1e218197a0f80ac6765e88f8b6ddf28",
        size=175_367_323,
    ),
    Checkpoint(
        "codeformer",
        "codeformer.pth",
        _CODEFORMER,
        "CodeFormer restorer",
        S_LAB,
        False,
        sha256="1009e537e0c2a07d4cabce6355f53cb66767cd4b4297ec7a4a64ca4b8a5684b7",
        size=376_637_898,
        aliases=("codeformer-v0.1.0.pth",),
    ),
    Checkpoint(
        "codeformer-inpainting",
        "codeformer_inpainting.pth",
        _CODEFORMER,
        "CodeFormer for missing regions",
        S_LAB,
        False,
        sha256="b0d1b868c3dacf75d637bbcc0d4b3dd4ce2a064a338dfb4d35c740d3b4ae8797",
    ),
    Checkpoint("codeformer-colorization", "codeformer_colorization.pth", _CODEFORMER, "CodeFormer for black and white", S_LAB, False),
    Checkpoint("codeformer-vqgan", "vqgan_code1024.pth", _CODEFORMER, "CodeFormer's codebook autoencoder, for fine-tuning", S_LAB, False),
    Checkpoint("keep", "KEEP-b76feb75.pth", f"{_KEEP}v1.0.0/", "KEEP restorer, current release", S_LAB, False, sha256="b76feb75"),
    Checkpoint("keep-v0", "KEEP-a1a14d46.pth", f"{_KEEP}v0.1.0/", "KEEP restorer, first release", S_LAB, False, sha256="a1a14d46"),
    Checkpoint("keep-asian", "KEEP_Asian-4765ebe0.pth", f"{_KEEP}v1.0.0/", "KEEP restorer trained on Asian faces", S_LAB, False, sha256="4765ebe0"),
    Checkpoint("dicface", "bfr_100k.pth", _DICFACE, "DicFace restorer", f"{S_LAB} (README); no licence file", False),
    Checkpoint("dicface-color", "color_100k.pth", _DICFACE, "DicFace for black and white", f"{S_LAB} (README); no licence file", False),
    Checkpoint("dicface-inpainting", "inpainting_100k.pth", _DICFACE, "DicFace for missing regions", f"{S_LAB} (README); no licence file", False),
    Checkpoint("restoreformer", "RestoreFormer.pth", _GFPGAN, "RestoreFormer restorer", f"licence unclear (published with GFPGAN, {APACHE})", None),
    Checkpoint(
        "restoreformer-pp",
        "RestoreFormer++.ckpt",
        _RESTOREFORMER,
        "RestoreFormer++ restorer",
        f"licence unclear ({APACHE} according to others)",
        None,
    ),
    Checkpoint(
        "gfpgan",
        "GFPGANv1.4.pth",
        _GFPGAN,
        "GFPGAN restorer, version 1.4",
        f"{APACHE}; its licence file lists non-commercial parts (StyleGAN2, DFDNet)",
        None,
        sha256="e2cd4703ab14f4d01fd1383a8a8b266f9a5833dacee8e6a79d3bf21a1b6be5ad",
        size=348_632_874,
    ),
    *(
        Checkpoint(f"flair-{name.replace('_', '-')}", f"flair_{name}.pt", _FLAIR, f"FLAIR diffusion network, {task}", UNSTATED, None, direct=False)
        for name, task in (
            ("x8_bicubic", "8x super-resolution"),
            ("x16_bicubic", "16x super-resolution"),
            ("gaussian", "blur and 4x super-resolution"),
            ("jpeg", "blur, 4x, noise and JPEG"),
        )
    ),
    Checkpoint("difface", "iddpm_ffhq512_ema500000.pth", _DIFFACE, "DifFace's unconditional face diffusion, FFHQ 512", S_LAB, False),
    Checkpoint("difface-swinir", "swinir_restoration512_L1.pth", _DIFFACE, "SwinIR restorer of DifFace", S_LAB, False),
    Checkpoint(
        "swinir",
        "swinir_gan_v1.pth",
        "https://github.com/SamsungLabs/DT-BFR/releases/download/v1.0.0/",
        "SwinIR restorer that pseudo-targets fine-tune",
        "see LICENSE in its repository",
        None,
    ),
)
"""Every published checkpoint that a method or a detector can use; names are unique."""


def named(name: str) -> Checkpoint:
    """The checkpoint called `name`. Raises ValueError if there is none, naming those that exist."""
    for checkpoint in CATALOGUE:
        if checkpoint.name == name:
            return checkpoint
    raise ValueError(f"no checkpoint is called {name!r}; there are {', '.join(c.name for c in CATALOGUE)}")


def find(checkpoint: Checkpoint, folders: Mapping[str, Iterable[Path]]) -> Path | None:
    """The file in the first of the checkpoint's folders that has it, or None; a .safetensors of the same stem is preferred.

    folders: folder name -> its directories, as the host knows them; those that cannot be read are skipped. Names are compared without case.
    """
    wanted = _names(checkpoint)
    for folder in checkpoint.folders:
        for directory in folders.get(folder, ()):
            try:
                here = {path.name.lower(): path for path in sorted(Path(directory).iterdir()) if path.is_file()}
            except OSError:  # not there, or not to be read: the others may have it
                continue
            for name in wanted:
                if name in here:
                    return here[name]
    return None


def _names(checkpoint: Checkpoint) -> list[str]:
    """The lower-case file names that a checkpoint goes by, .safetensors first."""
    names = [checkpoint.file, *checkpoint.aliases]
    return [Path(name).with_suffix(".safetensors").name.lower() for name in names] + [name.lower() for name in names]


def published_as(path: Path | str) -> Checkpoint | None:
    """The checkpoint that goes by this file's name, compared without case."""
    name = Path(path).name.lower()
    return next((checkpoint for checkpoint in CATALOGUE if name in _names(checkpoint)), None)


def licence_line(checkpoint: Checkpoint) -> str:
    """One line for people: the licence of the weights, and whether it allows commercial use."""
    allowed = {True: "commercial use allowed", False: "not for commercial use", None: "unclear whether commercial use is allowed"}
    return f"{checkpoint.licence}: {allowed[checkpoint.commercial_use]}"


def verification(checkpoint: Checkpoint) -> str:
    """How a download of it is checked, in a few words."""
    if len(checkpoint.sha256) == 64:
        return "verified by its SHA-256"
    if checkpoint.sha256:
        return f"verified by the first {len(checkpoint.sha256)} digits of its SHA-256"
    return "not verified, no checksum is known" + ("" if checkpoint.direct else "; not fetched, has no direct link")


def missing_message(checkpoint: Checkpoint, folders: Mapping[str, Iterable[Path]]) -> str:
    """One sentence for a user whose file is not there: its name, the folder to put it in, and where to get it."""
    places = [str(directory) for folder in checkpoint.folders for directory in folders.get(folder, ())]
    place = places[0] if places else f"models/{checkpoint.folders[0]}"
    terms = {True: "", False: ", not for commercial use", None: ", commercial use unclear"}[checkpoint.commercial_use]
    source = "download it from" if checkpoint.direct else "get it by the link on"
    return f"{checkpoint.file} ({checkpoint.purpose}; {checkpoint.licence}{terms}) is missing: {source} {checkpoint.url} and put it into {place}."
