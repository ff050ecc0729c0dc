"""What a student is trained on: the teacher's logits and hidden states."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence

# What labels have where there is nothing to learn, as in torch's cross entropy.
IGNORED = -100


def distillation_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor | None = None,
    temperature: float = 2.0,
    alpha: float = 0.5,
) -> Tensor:
    """alpha * temperature^2 * KL(teacher || student) + (1 - alpha) * cross entropy, a scalar.

    Hinton, Vinyals, Dean 2015, "Distilling the Knowledge in a Neural Network", arXiv 1503.02531:
    both distributions are softmax(logits / temperature) over the last dimension; the factor
    temperature^2 keeps gradients the same for every temperature. Means over all other dimensions.

    student_logits, teacher_logits: [..., C] with C >= 2 classes, any float dtype, taken as float32
    or wider. The teacher's are constants: no gradient goes to them. A binary classifier with one
    logit z has two, 0 and z: torch.stack((torch.zeros_like(z), z), -1).
    labels: int64 [...], a class each; -100 where nothing is to be learned, padding for example,
    from the teacher either; if that is everywhere the loss is 0. Without labels, as where a model
    learns from itself before it was compressed, alpha counts as 1.
    temperature: positive; alpha: in [0, 1]. Raises ValueError for others and for shapes that do not
    fit.
    """
    _check(student_logits, teacher_logits, labels, temperature, alpha)
    classes = student_logits.shape[-1]
    student = _wide(student_logits.reshape(-1, classes))
    teacher = _wide(teacher_logits.detach().reshape(-1, classes))
    if labels is None:
        return _divergence(student, teacher, temperature).mean()
    learned = labels.flatten() != IGNORED
    student, teacher, labels = student[learned], teacher[learned], labels.flatten()[learned]
    if not len(labels):
        return student.sum()
    soft = _divergence(student, teacher, temperature).mean()
    return alpha * soft + (1 - alpha) * F.cross_entropy(student, labels)


def hidden_state_loss(
    student: Tensor | PackedSequence,
    teacher: Tensor | PackedSequence,
    projection: nn.Module | None = None,
) -> Tensor:
    """Mean squared distance of hidden states, a scalar.

    Romero et al. 2015, "FitNets: Hints for Thin Deep Nets", arXiv 1412.6550, equation 3. student
    [..., S] and teacher [..., S'], outputs of LSTMs or their last states, or PackedSequences of the
    same lengths in the same order, which keeps padding out. The teacher's are constants.
    projection: a module from S to S' features, nn.Linear(S, S') say, where the two differ; its
    parameters are to be trained with the student's. Raises ValueError for shapes that do not fit.
    """
    own, wanted = _values(student), _values(teacher).detach()
    if _lengths(student) != _lengths(teacher):
        raise ValueError("the hidden states are not of the same lengths: pack both alike, or none")
    if projection is not None:
        own = projection(own)
    if own.shape != wanted.shape:
        hint = "" if projection is not None else ": give a projection, nn.Linear(S, S')"
        raise ValueError(f"hidden states are {tuple(own.shape)} and {tuple(wanted.shape)}{hint}")
    return F.mse_loss(_wide(own), _wide(wanted))


def _values(hidden: Tensor | PackedSequence) -> Tensor:
    return hidden.data if isinstance(hidden, PackedSequence) else hidden


def _lengths(hidden: Tensor | PackedSequence) -> list[int] | None:
    return hidden.batch_sizes.tolist() if isinstance(hidden, PackedSequence) else None


def _divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """temperature^2 * KL [n] of logits [n, C]."""
    log_p = (teacher / temperature).log_softmax(-1)
    log_q = (student / temperature).log_softmax(-1)
    p = log_p.exp()
    # A class that the teacher rules out adds nothing, whatever the student has for it.
    terms = torch.where(p > 0, p * (log_p - log_q.where(p > 0, 0.0)), 0.0)
    return temperature**2 * terms.sum(-1)


def _wide(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _check(
    student: Tensor, teacher: Tensor, labels: Tensor | None, temperature: float, alpha: float
) -> None:
    if student.shape != teacher.shape:
        raise ValueError(
            f"the student's logits are {tuple(student.shape)}, the teacher's {tuple(teacher.shape)}"
        )
    if student.dim() == 0 or student.shape[-1] < 2:
        raise ValueError(
            f"logits must be [..., C] with C >= 2 classes, got {tuple(student.shape)}: one logit z "
            "of a binary classifier has two, torch.stack((torch.zeros_like(z), z), -1)"
        )
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must be in [0, 1], got {alpha}")
    if labels is None:
        return
    if labels.shape != student.shape[:-1]:
        raise ValueError(
            f"labels must be {tuple(student.shape[:-1])}, a class for each row of logits, got "
            f"{tuple(labels.shape)}"
        )
    if labels.dtype != torch.int64:
        raise ValueError(f"labels must be int64 classes, got {labels.dtype}")
