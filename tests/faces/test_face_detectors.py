from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from fvr.faces import load_detector
from fvr.faces.compositing.parsing import NetworkParser, load_parser, soft_mask
from fvr.faces.detection.detectors import downscale
from fvr.faces.detection.retinaface import VARIANCE, RetinaFaceDetector, priors, retinaface_network


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """RetinaFace's file as published in form, with random weights."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "detection_Resnet50_Final.pth"
    torch.save({f"module.{key}": value for key, value in retinaface_network().state_dict().items()}, path)
    return path


def test_mtcnn_finds_the_astronaut_in_any_batch_and_size(astronaut):
    pytest.importorskip("facenet_pytorch", reason="its weights come with facenet-pytorch")
    detector = load_detector("mtcnn")
    frames = torch.stack([astronaut, astronaut.flip(-1), torch.zeros_like(astronaut)])
    batch = detector(frames)
    single = [detector(frame[None])[0] for frame in frames]
    assert [len(f) for f in batch] == [1, 1, 0]
    for a, b in zip(batch, single, strict=True):
        assert all(torch.equal(x.landmarks, y.landmarks) and torch.equal(x.box, y.box) and x.score == y.score for x, y in zip(a, b, strict=True))
    left, right, nose, mouth_left, mouth_right = batch[0][0].landmarks
    assert left[0] < nose[0] < right[0] and mouth_left[0] < mouth_right[0] and left[1] < nose[1] < mouth_left[1]
    mirrored = batch[1][0].landmarks[[1, 0, 2, 4, 3]]
    assert_close(511 - mirrored[:, 0], batch[0][0].landmarks[:, 0], atol=4, rtol=0)
    large = torch.nn.functional.interpolate(astronaut[None], scale_factor=2, mode="bilinear")
    assert_close(detector(large)[0][0].landmarks, batch[0][0].landmarks * 2 + 0.5, atol=6, rtol=0)


def test_detection_leaves_the_frames_alone_and_survives_tiny_ones(astronaut):
    detector = load_detector("blazeface")
    before = astronaut.clone()
    detector(astronaut[None])
    assert torch.equal(astronaut, before)
    assert detector(torch.rand(1, 3, 9, 40)) == [[]]


def test_downscale_keeps_small_frames_and_returns_factors():
    frame = torch.rand(3, 720, 1283)
    small, x, y = downscale(frame, 480)
    assert min(small.shape[-2:]) == 480
    assert (x * small.shape[-1], y * small.shape[-2]) == pytest.approx((1283, 720))
    assert downscale(frame[:, :480], 480)[0].shape == (3, 480, 1283)


def test_auto_uses_retinaface_if_its_weights_exist(weights, tmp_path):
    assert load_detector("auto", weights=weights).name == "retinaface"
    assert load_detector("auto", weights=tmp_path / "none.pth").name == "blazeface"
    assert load_detector("auto").name == "blazeface"
    with pytest.raises(FileNotFoundError, match=r"none\.pth"):
        load_detector("retinaface", weights=tmp_path / "none.pth")
    with pytest.raises(ValueError, match=r"detection_Resnet50_Final\.pth"):
        load_detector("retinaface")
    with pytest.raises(ValueError, match="must be one of auto, blazeface, retinaface, mtcnn"):
        load_detector("dlib")


def test_anchors_and_decoding_are_facexlibs():
    utils = pytest.importorskip("facexlib.detection.retinaface_utils")
    from facexlib.detection.retinaface import generate_config

    height, width = 75, 110
    oracle = utils.PriorBox(generate_config("resnet50"), image_size=(height, width)).forward()
    assert_close(priors(height, width), oracle)
    rng = torch.Generator().manual_seed(0)
    offsets, points = torch.randn(len(oracle), 4, generator=rng), torch.randn(len(oracle), 10, generator=rng)
    scores = torch.zeros(len(oracle))
    scores[7] = 0.95
    detector = object.__new__(RetinaFaceDetector)
    detector.threshold = 0.8
    (face,) = detector.decode(offsets, scores, points, height, width, 1.0, 1.0)
    size = torch.tensor([width, height])
    assert_close(face.box, (utils.decode(offsets, oracle, VARIANCE)[7].reshape(2, 2) * size).flatten())
    assert_close(face.landmarks, utils.decode_landm(points, oracle, VARIANCE)[7].reshape(5, 2) * size)


def test_retinaface_runs_in_batches_as_frame_by_frame(weights):
    """Random weights: this shows that loading, batching and decoding work, nothing about detection."""
    frames = torch.rand(3, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    single = RetinaFaceDetector(weights, threshold=0.5)
    batch = RetinaFaceDetector(weights, threshold=0.5, batch=3)
    one, all_ = single(frames), batch(frames)
    assert any(one)
    for a, b in zip(one, all_, strict=True):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_close(x.landmarks, y.landmarks, atol=1e-2, rtol=1e-4)
            assert x.score == pytest.approx(y.score, abs=1e-4)
    assert all(torch.equal(x.box, y.box) for a, b in zip(one, [single(f[None])[0] for f in frames], strict=True) for x, y in zip(a, b, strict=True))


class SkinOnTheLeft(torch.nn.Module):
    """Finds skin in the left half of every picture, background in the right."""

    def forward(self, x):
        scores = torch.zeros(len(x), 19, *x.shape[-2:])
        scores[:, 1, :, : x.shape[-1] // 2] = scores[:, 0, :, x.shape[-1] // 2 :] = 1
        return scores, None


def test_a_parser_s_classes_become_a_soft_mask_whatever_the_batch():
    crops = torch.rand(3, 3, 512, 512)
    masks = NetworkParser(SkinOnTheLeft(), lambda working: torch.device("cpu"), 2)(crops)
    classes = torch.zeros(1, 512, 512, dtype=torch.long)
    classes[:, :, :256] = 1
    assert torch.equal(masks, soft_mask(classes).expand(3, -1, -1))


def test_the_parser_is_the_one_of_the_file(tmp_path):
    parsenet = pytest.importorskip("facexlib.parsing.parsenet").ParseNet(in_size=512, out_size=512, parsing_ch=19)
    with torch.no_grad():
        parsenet.out_mask_conv.conv2d.bias += 1
    path = tmp_path / "parsing_parsenet.pth"
    torch.save(parsenet.state_dict(), path)
    loaded = load_parser(path)
    found = loaded.network.state_dict()
    assert all(torch.equal(value, found[name]) for name, value in parsenet.state_dict().items())
    with pytest.raises(FileNotFoundError, match="ParseNet"):
        load_parser(tmp_path / "none.pth")


def test_masks_keep_skin_and_hair_but_not_clothes():
    classes = torch.zeros(1, 512, 512, dtype=torch.long)
    classes[:, :, 170:340], classes[:, :, 340:] = 1, 18
    mask = soft_mask(classes)[0]
    assert mask[256, 255] > 0.99 and mask[256, 60] < 0.01 and mask[256, 450] < 0.01
    assert not mask[:10].any() and not mask[:, :10].any()
    assert mask[20:-20].diff(dim=1).abs().max() < 0.05
