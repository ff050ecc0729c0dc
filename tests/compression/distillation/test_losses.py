"""Distillation losses against their formulas, at the edges of logits, labels and dtypes."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_sequence

import lstm_fastkernels as lfk

STUDENT = torch.randn(4, 3, 7, generator=torch.Generator().manual_seed(0))
TEACHER = torch.randn(4, 3, 7, generator=torch.Generator().manual_seed(1)) * 3
LABELS = torch.randint(7, (4, 3), generator=torch.Generator().manual_seed(2))


def by_hand(student, teacher, temperature):
    """In float64, one row at a time."""
    total = 0.0
    for s, t in zip(student.double().view(-1, 7), teacher.double().view(-1, 7), strict=True):
        p, q = (s_.div(temperature).exp() for s_ in (t, s))
        p, q = p / p.sum(), q / q.sum()
        total += float((p * (p / q).log()).sum())
    return temperature**2 * total / (student.numel() / 7)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0, 10.0])
def test_the_formula(temperature):
    soft = by_hand(STUDENT, TEACHER, temperature)
    hard = float(F.cross_entropy(STUDENT.double().flatten(0, 1), LABELS.flatten()))
    found = lfk.distillation_loss(STUDENT, TEACHER, temperature=temperature)
    assert float(found) == pytest.approx(soft, rel=1e-5)
    for alpha in (0.0, 0.3, 1.0):
        found = lfk.distillation_loss(STUDENT, TEACHER, LABELS, temperature, alpha)
        assert float(found) == pytest.approx(alpha * soft + (1 - alpha) * hard, rel=1e-5)


def test_it_is_zero_for_equal_logits_and_gives_the_teacher_no_gradient():
    student, teacher = STUDENT.clone().requires_grad_(), STUDENT.clone().requires_grad_()
    loss = lfk.distillation_loss(student, teacher)
    assert loss.item() == pytest.approx(0, abs=1e-6)
    lfk.distillation_loss(student, teacher * 2, LABELS).backward()
    assert teacher.grad is None
    assert student.grad.abs().sum() > 0


def test_ignored_labels_are_left_out_of_both_parts():
    labels = LABELS.clone()
    labels[:, 2] = -100
    student, teacher = STUDENT.clone(), TEACHER.clone()
    student[:, 2] = torch.inf  # padding may be anything
    found = lfk.distillation_loss(student.requires_grad_(), teacher, labels, alpha=0.5)
    found.backward()
    assert not student.grad[:, 2].any()
    expected = lfk.distillation_loss(STUDENT[:, :2], TEACHER[:, :2], LABELS[:, :2], alpha=0.5)
    torch.testing.assert_close(found, expected)
    nothing = lfk.distillation_loss(student, TEACHER, torch.full_like(LABELS, -100))
    assert nothing.item() == 0
    nothing.backward()


def test_classes_that_are_ruled_out():
    teacher, student = TEACHER.clone(), STUDENT.clone().requires_grad_()
    teacher[..., 0] = -torch.inf
    masked = torch.cat((torch.full((4, 3, 1), -torch.inf), student[..., 1:]), -1)
    loss = lfk.distillation_loss(masked, teacher)
    assert loss.isfinite()
    torch.testing.assert_close(loss, lfk.distillation_loss(student[..., 1:], teacher[..., 1:]))
    loss.backward()
    assert student.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_dtypes(dtype):
    student, teacher = STUDENT.to(dtype), TEACHER.to(dtype)
    found = lfk.distillation_loss(student, teacher, LABELS)
    assert found.dtype == torch.promote_types(dtype, torch.float32)
    expected = lfk.distillation_loss(student.double(), teacher.double(), LABELS)
    assert float(found) == pytest.approx(float(expected), rel=1e-5)
    large = (student * 1e4).clamp(-6e4, 6e4)
    assert lfk.distillation_loss(large, teacher, LABELS).isfinite()


def test_a_single_row_and_two_classes():
    z, w = torch.tensor(0.3), torch.tensor(-1.2)
    pair = [torch.stack((torch.zeros_like(v), v), -1) for v in (z, w)]
    p, q = float(w.sigmoid()), float(z.sigmoid())
    expected = p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))
    found = lfk.distillation_loss(*pair, temperature=1.0)
    assert float(found) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ((STUDENT, TEACHER[:2]), "the teacher's"),
        ((STUDENT[..., :1], TEACHER[..., :1]), "C >= 2 classes"),
        ((STUDENT, TEACHER, LABELS[:, :2]), "labels must be"),
        ((STUDENT, TEACHER, LABELS.float()), "int64"),
        ((STUDENT, TEACHER, None, 0.0), "temperature must be positive"),
        ((STUDENT, TEACHER, None, math.nan), "temperature must be positive"),
        ((STUDENT, TEACHER, None, 1.0, 1.5), "alpha must be"),
    ],
)
def test_what_does_not_fit(arguments, match):
    with pytest.raises(ValueError, match=match):
        lfk.distillation_loss(*arguments)


def test_hidden_states():
    student, teacher = torch.randn(5, 3, 4), torch.randn(5, 3, 6).requires_grad_()
    projection = nn.Linear(4, 6)
    loss = lfk.hidden_state_loss(student, teacher, projection)
    torch.testing.assert_close(loss, (projection(student) - teacher).square().mean())
    loss.backward()
    assert teacher.grad is None
    assert projection.weight.grad.any()
    same = torch.randn(5, 3, 6)
    torch.testing.assert_close(
        lfk.hidden_state_loss(same.half(), same), (same.half().float() - same).square().mean()
    )


def test_hidden_states_of_packed_sequences():
    rows = [torch.randn(n, 4) for n in (3, 1, 2)]
    packed = pack_sequence(rows, enforce_sorted=False)
    other = pack_sequence([row + 1 for row in rows], enforce_sorted=False)
    assert float(lfk.hidden_state_loss(packed, other)) == pytest.approx(1.0)
    with pytest.raises(ValueError, match="same lengths"):
        lfk.hidden_state_loss(packed, pack_sequence(rows[:2], enforce_sorted=False))
    with pytest.raises(ValueError, match="same lengths"):
        lfk.hidden_state_loss(packed, torch.randn(6, 4))
    with pytest.raises(ValueError, match="give a projection"):
        lfk.hidden_state_loss(torch.randn(2, 3), torch.randn(2, 4))
