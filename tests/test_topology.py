"""Programs compiled for TPUs that are not there: what is in them, and what they say."""

import pytest
from written import PAGES, blocks

from benchmarks.harness import fresh, is_installed
from benchmarks.topology import structure
from tests import topologies

needs_libtpu = pytest.mark.skipif(
    not is_installed("libtpu"),
    reason="compiles by libtpu, which is not installed: pip install 'jax[tpu]'",
)
CLEAR = (
    "is compiled for devices that this process does not have, of a topology: it can be "
    "printed, not run. To run it, compile it for devices of jax.devices()."
)


@pytest.fixture(scope="module")
def found():
    return fresh(topologies.found)


@needs_libtpu
def test_kernels_are_loops_over_what_a_device_holds(found):
    for kernel in found["kernels"].values():
        assert (kernel["loops"], kernel["collectives"]) == (0, 0)
        assert kernel["fusions"] > 0
        assert kernel["output_bytes"] >= 1024 * 2048 * 2 // 8
        assert kernel["temp_bytes"] < kernel["output_bytes"]


@needs_libtpu
def test_what_communicates_and_what_repeats_is_seen(found):
    assert found["normalized"]["collectives"] > 0
    assert found["repeated"]["loops"] > 0


@needs_libtpu
def test_a_plan_is_compiled_once_for_equal_leaves(found):
    ((runs, size, temporary),) = found["programs"]
    assert (runs, size) == (2, 2 * 1024 * 2048 * 2)
    assert temporary < size / 2 / 8


@needs_libtpu
def test_programs_for_a_topology_say_that_they_cannot_run(found):
    errors = found["errors"]
    assert len(errors) == 3
    assert all(error.endswith(CLEAR) for error in errors)
    assert errors[0].startswith("<Programs: 1 for 2 leaves, 8,388,608 bytes>")


@needs_libtpu
def test_the_page_prints_what_it_shows():
    page = PAGES["guides/topologies.md"]
    assert fresh(topologies.printed, page) == "".join(blocks("text", page))


def test_the_page_shows_the_error():
    assert CLEAR in PAGES["guides/topologies.md"]


TEXT = """HloModule m
%fused (p: f32[8]) -> f32[8] {
  %x = f32[8]{0} fusion(%p), kind=kLoop
}

ENTRY %main (key: u32[2]) -> f32[8] {
  %a = (f32[8]{0}, f32[8]{0}) fusion(%key), kind=kLoop, metadata={op_name="while("}
  %b = f32[8]{0:T(128)} while(%a), condition=%c, body=%d
  %e = (f32[8]{0}, f32[8]{0}) all-gather-start(%b), channel_id=1
  ROOT %f = f32[8]{0} fusion(%e), kind=kLoop
}
"""


def test_structure_is_read_off_the_program_itself():
    assert structure(TEXT) == {"fusions": 2, "loops": 1, "collectives": 1}
