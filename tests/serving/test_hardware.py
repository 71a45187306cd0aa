"""The catalogue: dense rates as published, complete entries, files of one's own, names that do not exist."""

from pathlib import Path

import pytest

from moelab.errors import InputError
from moelab.serving import catalogue, load_hardware
from moelab.serving.doubts import borrowed
from moelab.serving.hardware import RATE_OF, Hardware
from moelab.serving.layout import Layout
from moelab.serving.serving_cost import serving_cost

DENSE = {  # bf16, fp8 (dense), memory, bandwidth: vendors' data sheets
    "a100": (312e12, None, 80e9, 2.039e12),
    "h100": (989.4e12, 1978.9e12, 80e9, 3.35e12),
    "h200": (989.4e12, 1978.9e12, 141e9, 4.8e12),
    "b200": (2250e12, 4500e12, 180e9, 8e12),
    "mi300x": (1307.4e12, 2614.9e12, 192e9, 5.3e12),
    "h20": (148e12, 296e12, 96e9, 4e12),
    "h800": (989.4e12, 1978.9e12, 80e9, 3.35e12),
    "b300": (2250e12, 4500e12, 270e9, 8e12),
    "gb200": (2500e12, 5000e12, 186e9, 8e12),
    "gb300": (2500e12, 5000e12, 279e9, 8e12),
    "mi325x": (1307.4e12, 2614.9e12, 256e9, 6e12),
    "mi355x": (2516.6e12, 5033.2e12, 288e9, 8e12),
    "rtx6000pro": (500e12, 1000e12, 96e9, 1.597e12),
    "tpu-v5p": (459e12, None, 95e9, 2.765e12),
    "tpu-v6e": (918e12, None, 32e9, 1.638e12),
    "l40s": (362.05e12, 733e12, 48e9, 864e9),
    "rtx4090": (165.2e12, 330.3e12, 24e9, 1.008e12),
}


@pytest.mark.parametrize("name", DENSE)
def test_rates_are_the_dense_ones(name: str) -> None:
    device = load_hardware(name)
    assert (device.bf16, device.fp8, device.memory, device.bandwidth) == DENSE[name]


def test_every_device_names_its_source() -> None:
    assert set(catalogue()) == {*DENSE, "cpu"}
    assert all(len(device.source) > 20 for device in catalogue().values())


@pytest.mark.parametrize("name", ["b200", "rtx4090", "tpu-v6e"])
def test_an_inherited_calibration_is_never_the_more_exact(name: str) -> None:
    own, inherited = load_hardware("h100").calibrated(), load_hardware(name).calibrated()
    assert (own.error, own.spread, inherited.error, inherited.spread) != (None,) * 4
    assert (inherited.spread or 0) > (own.spread or 1)
    assert (inherited.error or 0) > (own.error or 1)
    assert inherited.held_out_by == "model and device"
    near, far = (load_hardware(device).calibrated("vllm") for device in ("h200", name))
    assert (far.error or 0) > (near.error or 1)
    assert (far.spread or 0) > (near.spread or 1)


@pytest.mark.parametrize(("name", "marked"), [("tpu-v5p", True), ("tpu-v6e", True), ("b200", False), ("cpu", False)])
def test_a_calibration_of_another_maker_is_marked(name: str, marked: bool) -> None:
    assert any("no measured serving of Google TPU" in line for line in borrowed(load_hardware(name))) is marked


@pytest.mark.parametrize(("name", "int8"), [("tpu-v5p", 918e12), ("tpu-v6e", 1836e12)])
def test_these_tpus_have_integers_of_8_bits_but_no_fp8(name: str, int8: float) -> None:
    device = load_hardware(name)
    assert device.peak("int8") == int8
    assert device.peak("fp8") == device.peak("bf16")
    assert load_hardware("h100").peak("int8") == load_hardware("h100").peak("fp8")


def test_a_device_without_fp8_computes_in_bf16() -> None:
    device = load_hardware("a100")
    assert device.peak("fp8") == device.peak("nvfp4") == device.peak("bf16")
    assert load_hardware("h100").peak("fp8") == pytest.approx(2 * load_hardware("h100").peak("bf16"), rel=1e-3)
    assert load_hardware("b200").peak("nvfp4") == 2 * load_hardware("b200").peak("fp8")
    assert device.peak("int8") == 2 * device.peak("bf16")


def test_formats_decide_which_rate_counts() -> None:
    """Blocks of 32 with a scale of 8 bits are multiplied by CDNA4, blocks of 16 are not."""
    amd, nvidia = load_hardware("mi355x"), load_hardware("b200")
    assert amd.peak("mxfp4") == amd.fp4
    assert amd.peak("nvfp4") == amd.bf16
    assert nvidia.peak("mxfp4") == nvidia.peak("nvfp4") == nvidia.fp4
    mine = nvidia.to_dict() | {"formats": ["fp8"]}
    assert Hardware.parse(mine, "hardware").peak("nvfp4") == nvidia.bf16
    del mine["formats"]
    free = Hardware.parse(mine, "hardware")
    assert [name for name in RATE_OF if free.multiplies(name)] == list(RATE_OF)
    with pytest.raises(InputError, match="formats: nvfp4 needs a rate, fp4; give it or leave it out"):
        Hardware.parse(load_hardware("h100").to_dict() | {"formats": ["fp8", "nvfp4"]}, "hardware")


@pytest.mark.parametrize(
    ("device", "precision", "model", "noted"),
    [
        ("h100", "mxfp4", "gpt-oss-20b", True),
        ("h100", "nvfp4", "llama3-8b", True),
        ("a100", "fp8", "llama3-8b", True),
        ("h100", "mxfp4", "llama3-8b", False),
        ("h100", "fp8", "llama3-8b", False),
        ("b200", "nvfp4", "llama3-8b", False),
        ("h100", "int4", "llama3-8b", False),
    ],
)
def test_weights_that_are_only_stored_in_a_format_are_noted(
    device: str, precision: str, model: str, noted: bool
) -> None:
    served = serving_cost(model, device, precision=precision)
    name = load_hardware(device).name
    line = f"{precision} is weight-only on {name}: weights are read in {precision} and multiplied in bf16"
    assert (line in served.warnings) is noted


def test_a_scale_up_domain_of_72() -> None:
    device = load_hardware("gb300")
    assert Layout(64).nodes(device) == 1
    assert Layout(73).nodes(device) == 2
    assert Layout(64).nodes(load_hardware("b300")) == 8


@pytest.mark.parametrize("name", sorted(catalogue()))
def test_prices_are_dated_and_ordered_or_absent(name: str) -> None:
    device = load_hardware(name)
    if device.prices is None:
        return
    prices = device.prices
    assert prices.low <= prices.typical <= prices.high
    assert device.price == prices.typical
    assert prices.source
    assert prices.date.startswith("2026-")


def test_without_a_price_nothing_is_priced() -> None:
    with pytest.raises(InputError, match="gpu_price: AMD Instinct MI355X has no published price"):
        load_hardware("mi355x").dollars()
    assert load_hardware("mi355x").dollars("$4/h") == 4.0


def test_every_device_has_a_calibration_and_inheriting_widens_it() -> None:
    for name, device in catalogue().items():
        found = device.calibrated()
        assert found.id
        assert (found.error is None) == (name == "cpu")
    own, heir = load_hardware("h200").calibrated(), load_hardware("b200").calibrated()
    assert own.n_rows > 0 == heir.n_rows
    assert heir.factor > own.factor > 1  # type: ignore[operator]
    assert load_hardware("h200").calibrated("vllm").factor > own.factor  # type: ignore[operator]


def test_a_measured_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    load_hardware("l40s").replace(bandwidth_efficiency=0.5).to_yaml(path)
    found = load_hardware(str(path)).calibrated()
    assert (found.id, found.error, found.coefficients.bandwidth) == ("stated shares", None, 0.5)
    load_hardware("l40s").replace(calibration=load_hardware("h200").calibrated()).to_yaml(path)
    assert load_hardware(str(path)).calibrated() == load_hardware("h200").calibrated()


UNITS = """name: mine
source: my machine
bf16: 989.4 TFLOPs
fp8: 1.9789 PFLOP/s
memory: 80GB
bandwidth: 3.35 TB/s
link: 450GB/s
network: 400 Gbit/s
price: $2.5/h
latency: 10us
"""


def test_a_file_may_carry_units(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(UNITS)
    mine, h100 = load_hardware(str(path)), load_hardware("h100")
    for name in ("bf16", "fp8", "memory", "bandwidth", "link", "network"):
        assert getattr(mine, name) == pytest.approx(getattr(h100, name), rel=1e-15), name
    assert (mine.price, mine.latency) == (2.5, pytest.approx(1e-5))
    mine.to_yaml(path)
    assert load_hardware(str(path)) == mine
    path.write_text(UNITS.replace("10us", "1e-6"))
    assert load_hardware(str(path)).latency == 1e-6


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("80GB", "80 apples", r"memory: expected a number such as 80GB \(suffixes: B, KB"),
        ("3.35 TB/s", "3.35 Tb/s", "bandwidth: '3.35 Tb' may be bits or bytes"),
        ("989.4 TFLOPs", "fast", "bf16: expected a number such as 989.4T"),
        ("$2.5/h", "$2.5/day", "price: expected a number such as 2.5"),
        ("$2.5/h", "1e300", "price: "),
        ("80GB", "1e300", r"memory: must be above 0 and at most 1e18"),
        ("10us", "10 parsecs", "latency: expected a number such as 50ms"),
        ("80GB", "-80GB", "memory: "),
    ],
)
def test_units_that_are_none(tmp_path: Path, before: str, after: str, message: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(UNITS.replace(before, after))
    with pytest.raises(InputError, match=message) as caught:
        load_hardware(str(path))
    assert "\n" not in str(caught.value)


def test_bad_devices(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"hardware: no such device 'h1000'; did you mean 'h100' or 'h800' or 'h200'[?] known: a100"
    ):
        load_hardware("h1000")
    path = tmp_path / "bad.yaml"
    path.write_text("name: x\nsource: y\nbf16: -1\n")
    with pytest.raises(InputError, match="bf16"):
        load_hardware(str(path))


def test_two_devices_without_a_switch_share_one_connection() -> None:
    device = load_hardware("mi300x")
    assert device.between(2) == pytest.approx(64e9)
    assert device.between(4) == pytest.approx(192e9)
    assert device.between(8) == pytest.approx(device.link)
    assert load_hardware("h200").between(2) == load_hardware("h200").link
