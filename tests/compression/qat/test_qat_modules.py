"""Prepared LSTMs in models: checkpoints, masks and factors, copies, sharing, refusals."""

import copy
import io

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize
from torch.utils import checkpoint

import lstm_fastkernels as lfk
from cases import Case, flat
from isas import assert_same_bits
from pruning_cases import Model, adam, batch, train
from qat_cases import converted, prepared

INT8, INT4 = lfk.Int8Config(), lfk.Int4Config(group_size=32)
CASE = Case(9, 31, num_layers=2, bidirectional=True)


class Deep(nn.Module):
    """One LSTM, three modules deep and in two places."""

    def __init__(self):
        super().__init__()
        lstm = nn.LSTM(9, 9, batch_first=True)
        block = nn.ModuleDict({"first": lstm, "again": lstm})
        self.body = nn.Sequential(nn.Sequential(block))

    def forward(self, x):
        block = self.body[0][0]
        y, state = block["first"](x)
        return block["again"](y, state)[0]


def step(lstm, *arguments):
    optimizer = torch.optim.Adam(lstm.parameters(), lr=0.02)
    lstm(*arguments)[0].square().sum().backward()
    optimizer.step()


# ---- checkpoints ----


def test_parameters_stay_the_same_objects_and_weights_move_within_a_step():
    lstm = CASE.lstm()
    before = dict(lstm.named_parameters())
    values = {name: p.detach().clone() for name, p in before.items()}
    prepared(lstm, INT4)
    for name, parameter in before.items():
        if name.startswith("bias"):
            assert getattr(lstm, name) is parameter
            continue
        assert lstm.parametrizations[name].original is parameter
        scales = lstm.parametrizations[name][-1].base.repeat_interleave(32, 1)
        moved = (parameter - values[name]).abs() / scales[:, : parameter.shape[1]]
        assert moved.max() <= 0.5
    expected = list(values)
    assert [name for name in lstm.state_dict() if not name.startswith("parametr")] == expected


def test_resuming_from_a_state_dict():
    lstm = prepared(CASE.lstm(), INT8)
    step(lstm, CASE.x())
    file = io.BytesIO()
    torch.save(lstm.state_dict(), file)
    file.seek(0)
    other = prepared(Case(9, 31, num_layers=2, bidirectional=True, seed=5).lstm(), INT8)
    other.load_state_dict(torch.load(file))
    assert_same_bits(flat(other(CASE.x())), flat(lstm(CASE.x())))


@pytest.mark.parametrize("scales", ["learned", "followed"])
def test_float_checkpoints_are_loaded_and_scales_made_for_them(scales):
    floats = Case(9, 31, num_layers=2, bidirectional=True, seed=5).lstm()
    with torch.no_grad():
        floats.weight_hh_l0.mul_(7)
    lstm = prepared(CASE.lstm(), INT8, scales)
    step(lstm, CASE.x())
    lstm.load_state_dict(floats.state_dict())
    y, expected = lstm(CASE.x())[0], floats(CASE.x())[0]
    assert (y - expected).abs().max() < 0.05
    for name, weight in floats.state_dict().items():
        assert torch.equal(lstm.state_dict()[name], weight)


def test_missing_and_unfit_tensors_are_reported_by_float_names():
    lstm = prepared(CASE.lstm(), INT8)
    state = CASE.lstm().state_dict()
    del state["weight_hh_l1"]
    with pytest.raises(RuntimeError, match=r'Missing key\(s\) in state_dict: "weight_hh_l1"'):
        lstm.load_state_dict(state)
    with pytest.raises(RuntimeError, match="size mismatch"):
        lstm.load_state_dict(Case(9, 7, num_layers=2, bidirectional=True).lstm().state_dict())


def test_factorized_checkpoints():
    def factorized(seed):
        model = nn.Sequential(Case(9, 31, seed=seed).lstm())
        lfk.factorize_(model, lfk.LowRankConfig(rank=4))
        return model[0]

    lstm = factorized(0)
    keys = list(lstm.state_dict())
    prepared(lstm, INT8)
    assert set(keys) <= set(lstm.state_dict())
    step(lstm, CASE.x())
    other = factorized(5)
    lstm.load_state_dict(other.state_dict())
    assert (lstm(CASE.x())[0] - other(CASE.x())[0]).abs().max() < 0.05


# ---- with masks and factors ----


def test_factors_are_rounded_one_by_one_and_stay_factors():
    lstm = nn.LSTM(37, 41, 2, proj_size=19, bidirectional=True)
    x = torch.randn(5, 3, 37)
    lfk.factorize_(lstm, lfk.LowRankConfig(rank={"weight_ih_l0": 5, "weight_hh*": 4}))
    at_once = nn.Sequential(copy.deepcopy(lstm))
    lfk.quantize_(at_once, INT8)
    prepared(lstm, INT8)
    assert_same_bits(flat(lstm(x)), flat(at_once[0](x)))
    step(lstm, x)
    before = flat(lstm(x))
    assert not torch.equal(before[0], at_once[0](x)[0])
    twin = converted(lstm, INT8)
    assert twin.layouts()["weight_hh_l1"] == "rank 4"
    assert_same_bits(flat(twin(x)), before)


def test_factors_that_do_not_pay_are_multiplied_out():
    lstm = nn.LSTM(9, 31)
    lfk.factorize_(lstm, lfk.LowRankConfig(rank={"weight_ih_l0": 7}))
    prepared(lstm, INT8)
    step(lstm, torch.randn(5, 3, 9))
    x = torch.randn(5, 3, 9)
    before = flat(lstm(x))
    twin = converted(lstm, INT8)
    assert set(twin.layouts().values()) == {"dense"}
    assert_same_bits(flat(twin(x)), before)


@pytest.mark.parametrize("base", [INT8, INT4], ids=["int8", "int4"])
def test_pruning_goes_on_while_quantization_is_trained(base):
    model = Model()
    schedule = lfk.CubicSchedule(2, 8)
    pruner = lfk.prune_(model, lfk.PruneConfig(0.75, block_size=(2, 2), schedule=schedule))
    prepared(model, base)
    losses = train(model, adam(model), pruner, range(12))
    assert losses[-1] < 10
    x, _ = batch(0)
    before = model(x)
    lfk.quantize_(model, lfk.QATConfig(base, "convert"))
    assert torch.equal(model(x), before)
    for lstm in (model.layers[1], model.cell):
        weights = lstm.dequantize().state_dict()
        zeros = [w.eq(0).float().mean() for name, w in weights.items() if "weight" in name]
        assert min(zeros) > 0.7


def test_what_is_behind_masks_stays():
    lstm = CASE.lstm()
    lfk.prune_(lstm, lfk.PruneConfig(0.5))
    pair = lstm.parametrizations.weight_hh_l0
    behind = pair.original.detach()[~pair[0].mask].clone()
    prepared(lstm, INT8)
    assert torch.equal(pair.original[~pair[0].mask], behind)
    assert not lstm.state_dict()["weight_hh_l0"][~pair[0].mask].any()


# ---- models ----


@pytest.mark.parametrize("base", [INT8, INT4], ids=["int8", "int4"])
def test_deep_and_shared_modules(base):
    model = Deep()
    x = torch.randn(3, 5, 9)
    report = lfk.quantize_(model, lfk.QATConfig(base, "prepare"), calibration=[x, x])
    assert [lstm.name for lstm in report.lstms] == ["body.0.0.first"]
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    model(x).square().sum().backward()
    optimizer.step()
    other = copy.deepcopy(model)
    before = other(x)
    assert torch.equal(before, model(x))
    lfk.quantize_(model, lfk.QATConfig(base, "convert"))
    block = model.body[0][0]
    assert block["first"] is block["again"]
    assert type(block["first"]) is lfk.FastQuantLSTM
    assert torch.equal(model(x), before)
    assert torch.equal(other(x), before)


def test_some_of_a_model():
    model = Model()
    lfk.quantize_(model, lfk.QATConfig(INT4, "prepare"), lambda module, name: name == "cell")
    lfk.quantize_(model, lfk.QATConfig(INT8, "prepare"), lambda module, name: name != "cell")
    x, _ = batch(0)
    before = model(x)
    lfk.quantize_(model, lfk.QATConfig(INT4, "convert"), lambda module, name: name == "cell")
    lfk.quantize_(model, lfk.QATConfig(INT8, "convert"))
    assert model.cell.activations == "int4"
    assert model.layers[1].activations == "int8"
    assert torch.equal(model(x), before)


def test_hooks_frozen_weights_and_compile():
    lstm = CASE.lstm()
    seen = []
    lstm.register_forward_hook(lambda *_: seen.append(1))
    lstm.weight_hh_l0.requires_grad_(False)
    prepared(lstm, INT8)
    lstm(CASE.x())[0].sum().backward()
    assert lstm.parametrizations.weight_hh_l0.original.grad is None
    assert lstm.parametrizations.weight_hh_l1.original.grad is not None
    assert len(seen) == 1
    expected = lstm(CASE.x())[0]
    assert torch.equal(torch.compile(lstm, backend="eager")(CASE.x())[0], expected)
    twin = converted(lstm, INT8)
    twin(CASE.x())
    assert len(seen) > 2


def test_inference_mode_and_no_rows():
    lstm = prepared(CASE.lstm(), INT8)
    with torch.inference_mode():
        y = lstm(CASE.x())[0]
    assert_same_bits(y.clone(), lstm(CASE.x())[0].detach())
    nothing, (h, c) = lstm(CASE.x()[:, :0])
    nothing.sum().backward()
    assert (nothing.shape, h.shape, c.shape) == ((5, 0, 62), (4, 0, 31), (4, 0, 31))


def test_tracers_and_transforms_are_refused():
    lstm = prepared(CASE.lstm(), INT8).eval()
    with pytest.raises(RuntimeError, match="cannot be traced"):
        torch.jit.trace(lstm, (CASE.x(),))
    with pytest.raises(RuntimeError, match="cannot be traced"):
        torch.export.export(lstm, (CASE.x(),))
    with pytest.raises(RuntimeError, match=r"torch\.func cannot go through"):
        torch.func.grad(lambda x: lstm(x)[0].sum())(CASE.x())


def test_repr():
    mixed = lfk.Int8Config(precision={"weight_ih_l0": "int4", "weight_hh_l0": "float32"})
    found = repr(prepared(nn.LSTM(9, 31, 2), mixed))
    for line in ("(int4, groups of 64, scales learned)", "(float32)", "(int8, scales learned)"):
        assert line in found


def test_averages_checkpointing_and_caches():
    lstm, x = prepared(CASE.lstm(), INT8), CASE.x().requires_grad_()
    y = lstm(x)[0]
    (expected,) = torch.autograd.grad(y.sum(), x)
    lstm.flatten_parameters()
    with parametrize.cached():
        assert torch.equal(lstm(x)[0], y)
    averaged = torch.optim.swa_utils.AveragedModel(lstm)
    averaged.update_parameters(lstm)
    assert torch.equal(averaged(x)[0], y)
    again = checkpoint.checkpoint(lambda v: lstm(v)[0], x, use_reentrant=False)
    assert torch.equal(torch.autograd.grad(again.sum(), x)[0], expected)


def test_autocast_trains_as_without():
    lstm = prepared(CASE.lstm(), INT8)
    with torch.autocast("cpu", torch.bfloat16):
        y, _ = lstm(CASE.x())
        y.float().square().sum().backward()
    assert y.dtype == torch.bfloat16
    found = {name: p.grad.clone() for name, p in lstm.named_parameters()}
    lstm.zero_grad()
    lstm(CASE.x())[0].square().sum().backward()
    for name, parameter in lstm.named_parameters():
        both = parameter.grad.flatten(), found[name].flatten()
        assert torch.cosine_similarity(*both, 0) > 0.98, name


@pytest.mark.parametrize("first", [True, False], ids=["cast before", "cast after"])
def test_half_precision_parameters(first):
    lstm = CASE.lstm()
    lstm = prepared(lstm.bfloat16(), INT8) if first else prepared(lstm, INT8).bfloat16()
    x = CASE.x().bfloat16()
    y, _ = lstm(x)
    y.float().sum().backward()
    assert lstm.parametrizations.weight_hh_l0.original.grad.dtype == torch.bfloat16
    assert_same_bits(flat(converted(lstm, INT8)(x))[0], y.detach())


# ---- misuse ----


def test_refusals_change_nothing():
    def refused(model, config, match, error=ValueError, **options):
        before = {name: t.clone() for name, t in model.state_dict().items()}
        with pytest.raises(error, match=match):
            lfk.quantize_(model, config, **options)
        assert before.keys() == model.state_dict().keys()
        assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())

    prepare, convert = lfk.QATConfig(INT8, "prepare"), lfk.QATConfig(INT8, "convert")
    refused(nn.Linear(3, 3), prepare, "found no nn.LSTM")
    refused(CASE.lstm(), convert, "no nn.LSTM or nn.LSTMCell is prepared")
    refused(prepared(CASE.lstm(), INT8), prepare, "is prepared for quantization-aware training")
    refused(prepared(CASE.lstm(), INT8), INT8, "is prepared for quantization-aware training")
    refused(prepared(CASE.lstm(), INT4), convert, "prepared for 'int4'")
    other = lfk.QATConfig(lfk.Int4Config(group_size=64), "convert")
    refused(prepared(nn.LSTM(100, 9), INT4), other, "group_size")
    refused(CASE.lstm(), prepare, "min_sqnr", min_sqnr=30.0, calibration=[CASE.x()])
    refused(prepared(CASE.lstm(), INT8), convert, "calibration goes", calibration=[CASE.x()])
    tied = nn.ModuleList([nn.LSTM(9, 9), nn.LSTM(9, 9)])
    tied[1].weight_hh_l0 = tied[0].weight_hh_l0
    refused(tied, prepare, "shared with")
    broken = CASE.lstm()
    broken.weight_hh_l0.data[0, 0] = torch.nan
    before = copy.deepcopy(broken)
    with pytest.raises(ValueError, match="weight_hh_l0: values must be finite"):
        lfk.quantize_(broken, prepare)
    assert type(broken) is type(before)
    normed = parametrizations.weight_norm(nn.LSTM(9, 9), "weight_hh_l0")
    refused(normed, prepare, "another parametrization")
    unused = nn.ModuleDict({"used": nn.LSTM(9, 9), "never": nn.LSTM(9, 9)})
    unused.forward = lambda x: unused["used"](x)
    refused(unused, prepare, "never got no input", calibration=[torch.randn(3, 2, 9)])


@pytest.mark.parametrize(
    "use",
    [
        lfk.convert,
        lambda m: lfk.prune_(m, lfk.PruneConfig(0.5)),
        lambda m: lfk.factorize_(m, lfk.LowRankConfig(rank=2)),
        lfk.FastQuantLSTM.from_float,
        lambda m: lfk.check(lfk.convert(CASE.lstm()), m, [CASE.x()]),
    ],
)
def test_what_is_prepared_is_refused_elsewhere(use):
    with pytest.raises(ValueError, match="prepared for quantization-aware training"):
        use(prepared(CASE.lstm(), INT8))


def test_masks_and_factors_stay_under_the_rounding():
    lstm = nn.LSTM(9, 31)
    lfk.prune_(lstm, lfk.PruneConfig({"weight_ih": 0.5}))
    lfk.factorize_(lstm, lfk.LowRankConfig(rank={"weight_hh*": 4}))
    prepared(lstm, INT8)
    for remove in (lfk.remove_pruning_, lfk.remove_low_rank_):
        with pytest.raises(ValueError, match="prepared for quantization-aware training"):
            remove(lstm)
    lstm(torch.randn(5, 3, 9))


def test_other_parametrizations_on_top_and_none():
    lstm = parametrizations.weight_norm(prepared(nn.LSTM(9, 31), INT8), "weight_hh_l0")
    other = prepared(nn.LSTM(9, 31), INT8)
    parametrize.remove_parametrizations(other, "weight_hh_l0")
    for broken in (lstm, other):
        with pytest.raises(ValueError, match="weight_hh_l0 is prepared for training no longer"):
            broken(torch.randn(5, 3, 9))
        with pytest.raises(ValueError, match="weight_hh_l0 is prepared for training no longer"):
            converted(broken, INT8)


def test_hidden_units_are_pruned_before():
    with pytest.raises(ValueError, match="prune before quantizing"):
        lfk.prune_hidden_(prepared(nn.LSTM(9, 31), INT8), 0.5)


def test_configs():
    with pytest.raises(TypeError, match="base_config"):
        lfk.QATConfig("int8", "prepare")
    with pytest.raises(ValueError, match="step must be one of"):
        lfk.QATConfig(INT8, "train")
    with pytest.raises(ValueError, match="scales must be one of"):
        lfk.QATConfig(INT8, "prepare", "fixed")


def test_bad_calls_name_the_fault():
    lstm = prepared(CASE.lstm(), INT8)
    x, (h, c) = CASE.x(), CASE.state()
    for arguments, error, match in [
        ((x[..., :5],), RuntimeError, "input.size"),
        ((x[None],), ValueError, "2D or 3D"),
        ((x.double(),), ValueError, "float32, float16 or bfloat16"),
        ((x, (h[:1], c)), RuntimeError, r"Expected hidden\[0\] size"),
        ((x, (h, c[..., :5])), RuntimeError, r"Expected hidden\[1\] size"),
        ((x, (h.half(), c.half())), ValueError, "h0 and c0 must be"),
        ((x[:0],), RuntimeError, "larger than 0"),
        ((x.to_sparse(),), TypeError, "dense"),
        (([[1.0]],), TypeError, "torch.as_tensor"),
        ((x, (h,)), RuntimeError, "two tensors"),
        ((x[:, 0], (h, c)), RuntimeError, "unbatched"),
    ]:
        with pytest.raises(error, match=match):
            lstm(*arguments)


def test_weights_that_went_astray_are_named():
    lstm = prepared(CASE.lstm(), INT8)
    with torch.no_grad():
        lstm.parametrizations.weight_hh_l1.original[0, 0] = torch.inf
    with pytest.raises(ValueError, match="weight_hh_l1 is no longer finite"):
        lstm(CASE.x())
