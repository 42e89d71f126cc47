"""The nodes of this package."""

from __future__ import annotations

from .. import host
from ..headless.core_nodes import CORE_NODES
from ..headless.io import ComfyExtension, io
from .compare import CompareVideos
from .crops import CropsToFaces
from .degradation import Degrade, DescribeDegradation, FitDegradation
from .dicface import DicFaceRestore
from .faces import FaceAlign, PasteBack
from .fine_tune import PseudoTargetFineTune
from .flair import FlairRestorerNode, FlairSampler, LoadDiffusionPrior
from .frames import RestoreFrames
from .keep import KeepPropagate
from .measure import MeasureRestoration
from .page.replacements import announce_replacements
from .page.user_messages import with_user_messages
from .pseudo_target import PseudoTargetGenerate
from .restore import RestoreVideo
from .restorers import LoadFaceRestorer, RestoreFaces, RestorerSettings
from .seed_map import SeedMapOptimize
from .segment import RestoreSegment
from .video import LoadVideoFrames, RetimeFrames, SaveVideoFrames
from .wan import WanFaceRestorer

NODES: list[type[io.ComfyNode]] = [
    LoadVideoFrames,
    SaveVideoFrames,
    RetimeFrames,
    CompareVideos,
    FaceAlign,
    CropsToFaces,
    PasteBack,
    Degrade,
    DescribeDegradation,
    FitDegradation,
    LoadDiffusionPrior,
    FlairSampler,
    FlairRestorerNode,
    LoadFaceRestorer,
    RestorerSettings,
    WanFaceRestorer,
    RestoreFaces,
    KeepPropagate,
    DicFaceRestore,
    SeedMapOptimize,
    PseudoTargetGenerate,
    PseudoTargetFineTune,
    RestoreVideo,
    RestoreFrames,
    RestoreSegment,
    MeasureRestoration,
]


def registry() -> dict[str, type[io.ComfyNode]]:
    """Node classes by id for the headless runner: this package's, and the core nodes it provides."""
    for node in NODES:
        with_user_messages(node)
    return CORE_NODES | {node.define_schema().node_id: node for node in NODES}


class FaceVideoRestoration(ComfyExtension):
    """ComfyUI extension."""

    async def on_load(self) -> None:
        await announce_replacements()
        host.serve_scripts()

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        for node in NODES:
            with_user_messages(node)
        return NODES
