"""Students: what is made anew, what is copied, what is refused."""

import copy

import pytest
import torch
from torch import nn

import lstm_fastkernels as lfk
from cases import Case


class Tagger(nn.Module):
    """An LSTM three modules deep, used twice, with two readers."""

    def __init__(self, **options):
        super().__init__()
        self.embedding = nn.Embedding(11, 9)
        lstm = nn.LSTM(9, 32, 2, batch_first=True, dropout=0.1, **options)
        self.body = nn.Sequential(nn.Sequential(nn.ModuleDict({"lstm": lstm, "again": lstm})))
        width = lstm.proj_size or 32
        width *= 1 + lstm.bidirectional
        self.head, self.second = nn.Linear(width, 5), nn.LSTM(width, 7)

    def forward(self, tokens):
        y, state = self.body[0][0]["lstm"](self.embedding(tokens))
        y, _ = self.body[0][0]["again"](self.embedding(tokens), state)
        return self.head(y), self.second(y)[0]


READERS = {"body.0.0.lstm": ["head", "second"]}
ONLY = {"filter_fn": lambda module, name: name.startswith("body")}
TOKENS = torch.randint(11, (3, 4))


def same_options(a, b):
    options = ("bias", "batch_first", "dropout", "bidirectional", "proj_size", "input_size")
    return all(getattr(a, name) == getattr(b, name) for name in options)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_readers_follow_and_the_rest_is_copied(bidirectional):
    teacher = Tagger(bidirectional=bidirectional).double()
    before = copy.deepcopy(teacher.state_dict())
    student = lfk.student_like(teacher, hidden_size=8, num_layers=1, following=READERS, **ONLY)
    block = student.body[0][0]
    assert block["lstm"] is block["again"]
    assert (block["lstm"].hidden_size, block["lstm"].num_layers) == (8, 1)
    assert same_options(block["lstm"], teacher.body[0][0]["lstm"])
    width = 8 * (1 + bidirectional)
    assert student.head.in_features == student.second.input_size == width
    assert student.second.hidden_size == 7
    assert [tuple(out.shape) for out in student(TOKENS)] == [(3, 4, 5), (3, 4, 7)]
    assert torch.equal(student.embedding.weight, teacher.embedding.weight)
    assert student.embedding.weight is not teacher.embedding.weight
    assert {p.dtype for p in student.parameters()} == {torch.float64}
    assert all(torch.equal(t, before[name]) for name, t in teacher.state_dict().items())


def test_without_a_change_of_width_no_reader_is_needed():
    teacher = Tagger()
    student = lfk.student_like(teacher, num_layers=1, **ONLY)
    assert student.body[0][0]["lstm"].num_layers == 1
    assert torch.equal(student.head.weight, teacher.head.weight)
    named = lfk.student_like(teacher, num_layers=1, following={"body.0.0.lstm": "head"}, **ONLY)
    assert torch.equal(named.head.weight, teacher.head.weight)
    projected = lfk.student_like(Tagger(proj_size=6), hidden_size=16, **ONLY)
    assert projected.body[0][0]["lstm"].hidden_size == 16
    assert projected(TOKENS)[0].shape == (3, 4, 5)


@pytest.mark.parametrize("case", [Case(9, 31, 2, bidirectional=True, bias=False), Case(9, 31)])
def test_an_lstm_and_a_cell(case):
    teacher = case.lstm()
    student = lfk.student_like(teacher, hidden_size=5)
    assert type(student) is nn.LSTM
    assert student.hidden_size == 5
    assert same_options(student, teacher)
    assert not student.training
    cell = lfk.student_like(case.cell(), hidden_size=5)
    assert (type(cell), cell.hidden_size, cell.bias) == (nn.LSTMCell, 5, case.bias)


def test_it_learns_from_its_teacher():
    torch.manual_seed(0)
    teacher = Tagger().eval()
    student = lfk.student_like(teacher, hidden_size=16, following=READERS, **ONLY).train()
    optimizer = torch.optim.Adam(student.parameters(), lr=0.01)
    losses = []
    for _ in range(30):
        with torch.no_grad():
            expected = teacher(TOKENS)[0]
        loss = lfk.distillation_loss(student(TOKENS)[0], expected)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss))
    assert losses[-1] < losses[0] / 3


def _readers(*names, of="body.0.0.lstm"):
    return {"hidden_size": 8, "following": {of: names}, **ONLY}


@pytest.mark.parametrize(
    ("teacher", "options", "error", "match"),
    [
        (Tagger(), {}, ValueError, "give hidden_size or num_layers"),
        (Tagger(), {"hidden_size": 0}, ValueError, "hidden_size must be an integer"),
        (Tagger(), {"num_layers": 1.5}, ValueError, "num_layers must be an integer"),
        (nn.Linear(3, 3), {"hidden_size": 8}, ValueError, "found no nn.LSTM"),
        (Tagger(), {"hidden_size": 8, **ONLY}, ValueError, "name the modules that read it"),
        (Tagger(), _readers("tail"), ValueError, "following: the model has no module 'tail'"),
        (Tagger(), _readers("head", of="lstm"), ValueError, "the model has no module 'lstm'"),
        (Tagger(), _readers("body.0.0.lstm"), ValueError, "reads 9 features, but .* gives 32"),
        (Tagger(), _readers("embedding"), TypeError, "'Linear', 'LSTM', 'LSTMCell'.*Embedding"),
        (Tagger(), _readers("head", of="head"), TypeError, "'LSTM', 'LSTMCell'.*Linear"),
        (Tagger(proj_size=6), {"hidden_size": 6, **ONLY}, ValueError, "body.0.0.lstm: proj_size"),
    ],
)
def test_what_does_not_fit(teacher, options, error, match):
    with pytest.raises(error, match=match):
        lfk.student_like(teacher, **options)
