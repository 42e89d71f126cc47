"""Face detection, tracking, alignment and compositing."""

from .align import align, crop_clip, with_context
from .compositing.parsing import load_parser
from .compositing.paste import Paster
from .detection.detectors import Detector, load_detector
from .detection.external_detections import ExternalDetections, faces_from_boxes, faces_from_landmarks
from .tracking.people import Identity
from .tracking.report import PersonReport, TrackReport, clock, report, table
from .tracking.selection import LIKE, check_selection, identity_in, photo_path, reference_identity, select_tracks
from .tracking.sheet import Thumbnails, contact_sheet
from .tracking.tracks import Tracker, aligned_track, find_tracks
from .types import CROP, Face, FaceClip, FaceTrack
