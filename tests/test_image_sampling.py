"""Anchors and proposals are sampled by the image's position only, not by the batch, the process or the generators."""

import pytest
import torch
from detectron2.structures import Instances
from detectron2.utils.events import EventStorage
from test_ignore_regions import CELL, SIZE, grid, rcnn, truth

from cervical_d2.randomness import Stream, torch_seeded
from cervical_d2.structures import sampling_seed, set_sampling_seed


def images(*seeds):
    """One image's truth for each seed; None: without."""
    out = []
    for number, seed in enumerate(seeds):
        out.append(truth(cells=[CELL, [80.0, 8.0 + number, 112.0, 40.0]]))
        if seed is not None:
            set_sampling_seed(out[-1], seed)
    return out


def anchors_of(rpn, truths):
    return [label.tolist() for label in rpn.label_and_sample_anchors([grid(8)], truths)[0]]


def proposals_of(heads, truths, counts=None):
    proposals = [Instances(SIZE, proposal_boxes=grid(8), objectness_logits=torch.zeros(256)) for _ in truths]
    with EventStorage() as storage:
        sampled = heads.label_and_sample_proposals(proposals, truths)
    if counts is not None:
        counts.update({name: value for name, (value, _) in storage.latest().items()})
    return [one.proposal_boxes.tensor.tolist() for one in sampled]


def parts():
    model = rcnn()
    model.proposal_generator.batch_size_per_image = 12
    model.roi_heads.batch_size_per_image = 12
    return (model.proposal_generator, anchors_of), (model.roi_heads, proposals_of)


@pytest.mark.parametrize("stage", [0, 1])
def test_an_image_is_sampled_alike_in_any_batch_and_state(stage):
    part, samples = parts()[stage]
    first, second = samples(part, images(5, 9))
    torch.rand(17)
    assert samples(part, images(5)) == [first]
    assert samples(part, images(1, 9))[1] == second
    assert samples(part, images(6)) != [first]


@pytest.mark.parametrize("stage", [0, 1])
def test_without_a_seed_torch_decides_as_upstream(stage):
    part, samples = parts()[stage]
    torch.manual_seed(3)
    first, second = samples(part, images(None)), samples(part, images(None))
    assert first != second
    torch.manual_seed(3)
    assert samples(part, images(None)) == first


def test_sampling_leaves_the_generator_where_it_was():
    (rpn, _), (heads, _) = parts()
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    anchors_of(rpn, images(5))
    proposals_of(heads, images(5))
    assert torch.equal(torch.rand(1), expected)


def test_stages_draw_from_streams_of_their_own():
    draws = []
    for stream in (Stream.ANCHORS, Stream.PROPOSALS):
        with torch_seeded(5, stream):
            draws.append(torch.rand(1).item())
    assert draws[0] != draws[1]


def test_counts_of_samples_are_means_over_the_images():
    _, (heads, samples) = parts()
    counts: dict[str, float] = {}
    assert len(samples(heads, [*images(5), truth(cells=[])], counts)) == 2
    # Two cells, and the four 8 px squares of none match them: the cells themselves are the foreground of one image.
    assert counts["roi_head/num_fg_samples"] == 1
    assert counts["roi_head/num_bg_samples"] == 11


def test_the_seed_goes_with_the_truth_to_another_device():
    (one,) = images(5)
    assert sampling_seed(one.to("cpu")) == 5
